#!/usr/bin/env bash
# Table 4's nmMNIST after 100 of 500 epochs, one seed, the paper's settings in bfloat16. The order is that of the runs: two at a time.
set -euo pipefail
export OMP_NUM_THREADS=1
train() { mmssl train "$@" --data nm-mnist-r45-n0.5 --labels 100 --seeds 0 --preset paper --epochs 100 --set precision=bf16 --no-reference; }
train sshmvae
train ssmvae
train sshmvae-kl --beta 0.1,1 --stack 2
train sshmvae-kl --beta 10
mmssl reproduce table4 table1 --data-only mnist --seeds 0 --epochs 100 --set precision=bf16 --time-limit 0.02  # writes what there is
