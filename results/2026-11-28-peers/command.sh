#!/usr/bin/env bash
# JMVAE-kl beside MultiVae and pixyz (pip install 'mmssl[peers]').
set -euo pipefail
OMP_NUM_THREADS=1 python -m benchmarks.peers --rounds 5 --steps 12 --out results/2026-11-28-peers/peers.jsonl
