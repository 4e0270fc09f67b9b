#!/usr/bin/env bash
# Rows that lack modalities, classes of unequal frequency, and what a prediction costs. mfeat's files lie in $MMSSL_DATA/mfeat.
set -euo pipefail
export OMP_NUM_THREADS=1
mmssl preprocess mfeat
mmssl preprocess hm-digits
python -m benchmarks.lacking holes workspace/shards/mfeat.h5 --labels 50 --seeds 5 6 7 8 9 --out holes.jsonl
python -m benchmarks.lacking dropped workspace/shards/hm-digits.h5 --labels 50 --seeds 0 1 2 3 4 --out dropped.jsonl
python -m benchmarks.lacking thinned workspace/shards/mfeat.h5 --labels 100 --seeds 5 6 --out thinned.jsonl
python -m benchmarks.encode
python -m benchmarks.predict
python -m benchmarks.frame
python -m benchmarks.unlikeness workspace/shards/mfeat.h5 --labels 50 --out unlikeness.jsonl
# What leaving them out changes, on a validation part on which nothing is reported: more seeds.
mmssl shards validation workspace/shards/hm-digits.h5
python -m benchmarks.lacking dropped workspace/shards/hm-digits-validation.h5 --labels 50 --seeds {0..14} --out dropped-validation.jsonl
