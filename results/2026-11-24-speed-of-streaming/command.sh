#!/usr/bin/env bash
# Training from disk against training in memory.
set -euo pipefail
OMP_NUM_THREADS=1 python -m benchmarks.stream --rounds 4
