#!/usr/bin/env bash
# Suggested labels against labels drawn at random, as many of each. The same command resumes.
set -euo pipefail
OMP_NUM_THREADS=1 python -m benchmarks.suggest hm-digits --out hm-digits.json
# Ready, not run yet:
# python -m benchmarks.suggest mfeat --out mfeat.json
# python -m benchmarks.suggest "workspace/shards/demo-split-{split}.h5" --split 0 1 2 3 4 --out rgbd-sample.json
# python -m benchmarks.suggest hm-mnist --beta 0.1 --device cuda --out hm-mnist.json
