#!/usr/bin/env bash
# Our recommended settings beside the classifiers that people would use instead, on the same labels.
# mfeat's files lie in $MMSSL_DATA/mfeat, MNIST's in $MMSSL_DATA/mnist.
set -euo pipefail
mmssl compare hm-digits --presets recommended --labels 20,50,100,200 --seeds 0..4
mmssl compare nm-digits --presets recommended --labels 20,50,100,200 --seeds 0..4
mmssl compare mfeat --presets recommended --labels 20,50,100,200 --seeds 5..9
mmssl train sshmvae-kl --data hm-mnist --preset recommended --beta 0.1 --seeds 0..2 --stack 1
mmssl train sshmvae-kl --data nm-mnist-r45-n0.5 --preset recommended --beta 0.1 --stack 1
mmssl demo   # makes the shards of splits 0 and 1; the other eight with `mmssl extract --split 0..9` and the settings in commands/demo_settings.py
mmssl compare "workspace/shards/demo-split-{split}.h5" --split 0..9 --labels shard --presets recommended --seeds 0 \
  --rivals logistic-regression,ls-svc,label-spreading,mlp,self-training
mmssl train sshmvae-kl --data mfeat --labels 400
mmssl train sshmvae-kl --data mfeat --labels all
