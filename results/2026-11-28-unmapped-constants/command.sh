#!/usr/bin/env bash
# A step before the passes were joined, before the constants were mapped, and now: ./command.sh FD3A38C 4BBFE91 (two worktrees)
set -euo pipefail
out=results/2026-11-28-unmapped-constants
versions() { name=$1; shift; python -m benchmarks.versions "$@" --rounds 9 --out "$out/$name.jsonl"; }
for late in "" "--late"; do
  # shellcheck disable=SC2086
  versions "recommended$late" recommended $late "$1:fp32:1" "$2:fp32:1" .:fp32:1 "$2:bf16:1" .:bf16:1 .:bf16:4
  # shellcheck disable=SC2086
  versions "digits$late" digits $late "$1:fp32:1" "$2:fp32:1" .:fp32:1
done
versions paper paper "$1:fp32:1" "$2:fp32:1" .:fp32:1 "$2:bf16:1" .:bf16:1 .:bf16:4
softplus='
import sys, time, torch
torch.set_num_threads(1)
x = 3 * torch.randn(612, 392)
def microseconds():
    seconds = []
    for _ in range(50):
        begun = time.process_time(); torch.nn.functional.softplus(x); seconds.append(time.process_time() - begun)
    return round(1e6 * sorted(seconds)[25])
before = microseconds()
torch.log1p(torch.full((64,), -0.0))
print("softplus of 612 x 392, microseconds:", before, "then", microseconds())'
for _ in 1 2 3; do OMP_NUM_THREADS=1 python -c "$softplus"; done
