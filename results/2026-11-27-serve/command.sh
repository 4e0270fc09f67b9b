#!/usr/bin/env bash
# One row asked over HTTP against the same row in the same process, and 64 clients for a minute. Needs mmssl[serve,bench].
set -euo pipefail
OMP_NUM_THREADS=1 python -m benchmarks.serve --rounds 12 --out serve.jsonl
