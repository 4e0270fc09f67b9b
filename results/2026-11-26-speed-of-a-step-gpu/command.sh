#!/usr/bin/env bash
# The step on a GPU, captured and not; R is the number of replicas in one pass.
set -euo pipefail
python -m benchmarks.step --device cuda
