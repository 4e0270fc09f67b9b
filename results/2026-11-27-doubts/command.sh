#!/usr/bin/env bash
# How many flipped labels are listed first, on mfeat.
set -euo pipefail
OMP_NUM_THREADS=1 python -m benchmarks.doubts mfeat --labels 400 200 --seeds 0 1 2 --out results/2026-11-27-doubts/mfeat.json
