#!/usr/bin/env bash
# Everything there is to see on a machine with a CUDA device, in one go: right before fast, fast before long.
# Needs mmssl's dependencies and MNIST (MMSSL_DATA, or workspace/raw/mnist). Writes to $OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-results/gpu}
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD MMSSL_ROOT=${MMSSL_ROOT:-$OUT/workspace}
mkdir -p "$OUT"

echo "== correct: the captured step against the plain one, the GPU against the CPU"
$PYTHON -m pytest -q -m gpu tests 2>&1 | tee "$OUT/tests.txt"

echo "== fast: eager and captured steps, R = 1, 5, 10, 20, and the share of the card's matrix rate"
for precision in fp32 tf32 bf16; do
  $PYTHON -m benchmarks.step --device cuda --precision $precision --out "$OUT/step-$precision.jsonl"
done

for benchmark in extract stream; do
  $PYTHON -m benchmarks.$benchmark --device cuda --out "$OUT/$benchmark.jsonl"
done

echo "== long: the paper's tables 1 to 4 and figures 4 and 5, five seeds, 500 epochs; it goes on when called again (75)"
$PYTHON -m cli reproduce all --data-only mnist --seeds 0..4 --device cuda --out "$OUT/paper" --time-limit "${MINUTES:-9}"
$PYTHON -m cli reproduce table4 --preset best --seeds 0..4 --device cuda --out "$OUT/best" --time-limit "${MINUTES:-9}"
$PYTHON -m cli report "$OUT/paper" "$OUT/best" --html "$OUT/report.html"
