#!/usr/bin/env bash
# Suggested labels against labels drawn at random, as many of each; and the first labels where there is none. The same commands resume.
set -euo pipefail
export OMP_NUM_THREADS=1
mmssl preprocess mfeat # its files lie in $MMSSL_DATA/mfeat
mmssl demo             # the rendered sample's shards
for first in "" cold-; do
  option=${first:+--cold}
  python -m benchmarks.suggest hm-digits $option --out "${first}hm-digits.json"
  python -m benchmarks.suggest mfeat $option --out "${first}mfeat.json"
  python -m benchmarks.suggest "workspace/shards/demo-split-{split}.h5" --split 0 1 2 3 4 $option --out "${first}rgbd-sample.json"
done
python -m benchmarks.suggest hm-mnist --seeds 0 1 2 3 4 --rounds 4 --epochs 10 --beta 0.1 --precision bf16 --out hm-mnist.json
for seed in 0 2; do # longer, on the labels that these suggested
  mmssl train sshmvae-kl --data hm-mnist --preset recommended --beta 0.1 --epochs 40 --set precision=bf16 \
    --labels 20 --labels-from "hm-mnist-answers-seed-$seed.csv" --seeds "$seed"
done
python -m benchmarks.suggest_figure hm-digits.json mfeat.json rgbd-sample.json hm-mnist.json --out curves.svg
