#!/usr/bin/env bash
# SS-HMVAE-kl on MNIST, five seeds, on a GPU: --preset best, and the paper's settings.
set -euo pipefail
mmssl train sshmvae-kl --data hm-mnist --beta 0.1 --preset best --seeds 0..4 --epochs 80 --device cuda
mmssl train sshmvae-kl --data nm-mnist-r45-n0.5 --beta 0.1 --preset best --seeds 0..4 --epochs 150 --device cuda
mmssl train sshmvae-kl --data hm-mnist --beta 0.1,1,10 --seeds 0..4 --epochs 100 --device cuda
