#!/usr/bin/env bash
# What fine-tuning the upper layers alone saves: a rendered sample, one thread, two epochs. The weights are random but the same for
# every split, as downloaded ones would be.
set -euo pipefail
export OMP_NUM_THREADS=1
mmssl data sample
mmssl preprocess rgbd --data rgbd-sample
python -c "
import torch; from torchvision.models import vgg16; from safetensors.torch import save_file
torch.manual_seed(0); save_file(vgg16(weights=None).state_dict(), 'vgg.safetensors')"
extract() { mmssl extract --data rgbd-sample --weights vgg.safetensors --epochs 2 "$@"; }
time extract --split 0 --name whole
time extract --split 0 --tune fc1 --name upper
time extract --split 0..2 --tune fc1 --name upper
