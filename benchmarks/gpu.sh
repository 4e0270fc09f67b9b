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

echo "== long: five seeds of every model at the paper's 500 epochs; a stopped run goes on when called again"
for data in hm-mnist nm-mnist; do
  for model in "sshmvae-kl --beta 0.1,1,10" sshmvae ssmvae m2 "sdgm --modality x" "sdgm --modality w" jmvae jmvae-kl; do
    # shellcheck disable=SC2086  # a model's options are words of their own
    $PYTHON -m cli train $model --data $data --seeds 0..4 --device cuda
  done
done
$PYTHON -m cli runs --json > "$OUT/runs.json"
$PYTHON -m cli runs --curves "$OUT/curves.png" > "$OUT/runs.txt"
