#!/usr/bin/env bash
# float32 against bfloat16 on a CPU, five seeds each.
set -euo pipefail
export OMP_NUM_THREADS=1
for precision in fp32 bf16; do
  train() { mmssl train sshmvae-kl --set precision=$precision --seeds 0..4 --no-reference "$@"; }
  train --data hm-mnist-validation --labels 100 --preset recommended --epochs 8 --stack 1
  train --data nm-mnist-validation --labels 100 --preset recommended --epochs 8 --stack 1
  train --data hm-mnist-validation --labels 100 --beta 0.1 --preset paper --epochs 5 --stack 1
  train --data hm-digits --labels 100 --preset recommended
  train --data nm-digits --labels 100 --preset recommended
  train --data mfeat --labels 50 --preset recommended
done
