#!/usr/bin/env bash
# CPU time of a step in this version and in another: ./command.sh FOLDER_OF_THE_OTHER
# (Taken with a script of that day, which ran the versions one after the other; this is its successor.)
set -euo pipefail
for preset in "paper" "recommended" "recommended --late"; do
  # shellcheck disable=SC2086
  python -m benchmarks.versions $preset "$1:fp32:1" .:fp32:1 "$1:bf16:1" .:bf16:1
done
