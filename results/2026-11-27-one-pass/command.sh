#!/usr/bin/env bash
# CPU time of a step in this version and in another: ./command.sh FOLDER_OF_THE_OTHER
set -euo pipefail
for _ in 1 2; do
  for folder in "$1" .; do
    for preset in paper recommended; do
      for precision in fp32 bf16; do
        echo -n "$folder $preset $precision: "
        PYTHONPATH="$folder" OMP_NUM_THREADS=1 python benchmarks/step_cpu.py "$preset" "$precision"
      done
    done
  done
done
