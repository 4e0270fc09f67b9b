#!/usr/bin/env bash
# Builds the cpu image without a container engine, and runs arrays of jobs in it (as root, on Debian).
set -euo pipefail
docker/verify.sh        # target cpu; base: debootstrap's bookworm; torch from PyPI, which is its CUDA build, trimmed
