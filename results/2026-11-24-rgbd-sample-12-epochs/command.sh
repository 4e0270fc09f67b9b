#!/usr/bin/env bash
# Tables 5 and 6 and figure 6 on the rendered RGB-D sample, ten splits.
set -euo pipefail
mmssl data sample
mmssl preprocess rgbd --data rgbd-sample --size 64
mmssl extract --data rgbd-sample --size 64 --weights random --labelled 0.5 --epochs 0 --split 0..9
mmssl reproduce table5 table6 figure6 --data rgbd-sample-64 --preset sample --epochs 12
