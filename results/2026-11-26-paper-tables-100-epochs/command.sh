#!/usr/bin/env bash
# Tables 1 and 4 on MNIST, as far as 100 of 500 epochs were trained: 17 of table 4's 50 runs.
set -euo pipefail
mmssl train sshmvae-kl --data hm-mnist --beta 0.1,1,10 --seeds 0..4 --epochs 100   # on the GPU
mmssl train sshmvae --data hm-mnist --epochs 100
mmssl train ssmvae --data hm-mnist --epochs 100
mmssl train sshmvae --data hm-mnist --labels all --epochs 100
mmssl reproduce table1 table4 --seeds 0..4 --epochs 100 --time-limit 0.01          # stops at once: writes what there is
