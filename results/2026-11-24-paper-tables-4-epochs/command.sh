#!/usr/bin/env bash
# Tables 1 to 4 and figures 4 and 5 on MNIST, reduced: one seed, 4 of 500 epochs, batches of 128.
set -euo pipefail
mmssl reproduce table1 table2 table3 table4 figure4 figure5 --seeds 0 --epochs 4 --set batch_size=128
