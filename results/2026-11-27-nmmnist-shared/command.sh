#!/usr/bin/env bash
# SS-HMVAE-kl with the recommended settings on nmMNIST, 100 labels, half of the recommended epochs, on one core of a CPU.
set -euo pipefail
export OMP_NUM_THREADS=1
for seed in 0 1 2 3 4; do
  mmssl train sshmvae-kl --data nm-mnist-r45-n0.5 --labels 100 --seeds $seed --beta 0.1 --preset recommended --epochs 40 \
    --set precision=bf16 --no-reference
done
for seed in 0 1; do
  mmssl train sshmvae-kl --data hm-mnist --labels 100 --seeds $seed --beta 0.1 --preset recommended --epochs 10 --set precision=bf16 --no-reference
done
mmssl evaluate workspace/runs/nm-mnist-*-seed-3-* --samples 30 --no-reference
