#!/usr/bin/env bash
# --preset best on one core, and on the rendered sample.
set -euo pipefail
mmssl train sshmvae-kl --data hm-mnist --beta 0.1 --preset best --epochs 20
mmssl train sshmvae-kl --data nm-mnist-r45-n0.5 --beta 0.1 --preset best --epochs 40 --batch-size 128
mmssl train sshmvae-kl --data nm-mnist-r45-n0.5 --beta 0.1 --epochs 20 --batch-size 128
# the shards: ../2026-11-24-rgbd-sample-12-epochs/command.sh
mmssl train sshmvae-kl --data rgbd-sample-64 --split 0..9
mmssl train sshmvae-kl --data rgbd-sample-64 --split 0..9 --preset best
