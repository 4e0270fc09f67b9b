#!/usr/bin/env bash
# Our recommended settings beside the classifiers that people would use instead, on the same labels.
# mfeat's files lie in $MMSSL_DATA/mfeat, MNIST's in $MMSSL_DATA/mnist.
set -euo pipefail
mmssl compare hm-digits --presets recommended --labels 20,50,100,200 --seeds 0..4
mmssl compare nm-digits --presets recommended --labels 20,50,100,200 --seeds 0..4
mmssl compare mfeat --presets recommended --labels 20,50,100,200 --seeds 5..9
mmssl train sshmvae-kl --data hm-mnist --preset recommended --beta 0.1 --seeds 0,1 --stack 1
