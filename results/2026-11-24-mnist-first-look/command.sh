#!/usr/bin/env bash
# Every model once on hmMNIST and nmMNIST; the epochs are those of the table.
set -euo pipefail
for data in hm-mnist nm-mnist; do
  mmssl train sshmvae-kl --data $data --beta 0.1 --epochs 10
  mmssl train sshmvae --data $data --epochs 10
  mmssl train ssmvae --data $data --epochs 10
  mmssl train jmvae --data $data --epochs 5 --iterations 20
  mmssl train jmvae-kl --data $data --beta 0.1 --epochs 5
done
mmssl train sshmvae-kl --data hm-mnist --beta 0.1 --epochs 20
mmssl train m2 --data hm-mnist --epochs 10
mmssl train m2 --data nm-mnist --epochs 5
mmssl train sdgm --data hm-mnist --modality x --epochs 10
mmssl train sdgm --data hm-mnist --modality w --epochs 5
mmssl train sdgm --data nm-mnist --modality x --epochs 5
mmssl train sdgm --data nm-mnist --modality w --epochs 5
mmssl runs --curves curves.png
