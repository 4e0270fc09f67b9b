#!/usr/bin/env bash
# Two splits of the rendered sample, by one process and by two.
set -euo pipefail
mmssl data sample
mmssl preprocess rgbd --data rgbd-sample
for round in 1 2; do
  for jobs in 1 2; do
    time mmssl extract --data rgbd-sample --weights random --epochs 1 --split 0..1 --jobs $jobs --name round-$round-jobs-$jobs
  done
done
