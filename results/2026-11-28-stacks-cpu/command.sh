#!/usr/bin/env bash
# Time of a step per replica by the size of the stack: one thread, two, and two processes with one each.
set -euo pipefail
step() { python -m benchmarks.stacks --rounds 3 "$@"; }
step --replicas 1,4,8 --threads 2
for shape in digits sample; do step --replicas 1,4,8 --threads 1 --only $shape; done
for shape in digits sample; do
  step --replicas 1,8 --threads 1 --only $shape & step --replicas 1,8 --threads 1 --only $shape; wait
done
step --replicas 1,4 --rounds 2 --only hmMNIST --threads 1
for threads in 1 2; do step --replicas 1,4 --rounds 2 --only hmMNIST --threads $threads --precision bf16; done
# Whole trainings.
for seeds in 0 0..4 0; do for threads in 1 2; do
  root=$(mktemp -d)
  OMP_NUM_THREADS=$threads bash -c "time mmssl train sshmvae-kl --data hm-digits --labels 100 --seeds $seeds --no-reference --root $root"
done; done
