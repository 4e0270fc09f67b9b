#!/usr/bin/env bash
# hmMNIST with 20 of 60,000 labels: a quarter of the recommended settings' epochs, beside everyday rivals, five seeds.
set -euo pipefail
export OMP_NUM_THREADS=1
mmssl compare hm-mnist --labels 20 --seeds 0..4 --presets recommended \
  --rivals logistic-regression,label-spreading,mlp,self-training,consistency-mlp --set epochs=20 --set precision=bf16 --set beta=0.1
