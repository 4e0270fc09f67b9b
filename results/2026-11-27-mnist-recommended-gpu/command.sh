#!/usr/bin/env bash
# SS-HMVAE-kl with the recommended settings on MNIST, 100 labels, five seeds, on a GPU.
set -euo pipefail
for data in hm-mnist nm-mnist-r45-n0.5; do
  mmssl train sshmvae-kl --data $data --beta 0.1 --preset recommended --seeds 0..4 --device cuda --no-reference
done
