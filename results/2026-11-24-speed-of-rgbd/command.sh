#!/usr/bin/env bash
# Preprocessing and feature extraction against the work that cannot be avoided.
set -euo pipefail
FRAMES=${1:?a folder of real frames}
export OMP_NUM_THREADS=1
python -m benchmarks.preprocess --data "$FRAMES" --frames 280 --rounds 5 --parts 1,3 --sizes 500,20000
python -m benchmarks.preprocess --data "$FRAMES" --frames 8400 --rounds 3 --parts 2
python -m benchmarks.extract --images 64 --threads 1 --rounds 5
