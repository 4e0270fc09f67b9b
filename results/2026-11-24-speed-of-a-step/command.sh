#!/usr/bin/env bash
# The training step against a matrix product and against a step without replicas.
set -euo pipefail
python -m benchmarks.step
python -m benchmarks.step --threads 1
