#!/usr/bin/env bash
# The demo, timed.
set -euo pipefail
time make demo
