#!/usr/bin/env bash
# Why SS-MVAE stays at 62 % on nmMNIST: other weights and labels, then twenty draws of each labelled digit in place of one.
set -euo pipefail
export OMP_NUM_THREADS=1
try() { mmssl train ssmvae --preset paper --set precision=bf16 --no-reference "$@"; }
on_pairs() { try --data nm-mnist-r45-n0.5 --labels 100 "$@"; }
on_pairs --seeds 0 --alpha 10 --epochs 20
on_pairs --seeds 0 --alpha 100 --epochs 20
on_pairs --seeds 0 --set label_estimator=exact --epochs 20
on_pairs --seeds 0 --set labelled_batch_size=10 --epochs 10
on_pairs --seeds 1 --epochs 20

mmssl preprocess nm-mnist --rotation 0 --noise 0
python - <<'PYTHON'
from pathlib import Path

import numpy as np

from pipeline.datasets.digits import add_noise, rotate
from pipeline.shards.shard import Shard
from pipeline.shards.writing import PartData, write_shard

DRAWS = 20
shards, runs = Path("workspace/shards"), Path("workspace/runs")
pairs, clean = Shard.open(shards / "nm-mnist-r45-n0.5.h5"), Shard.open(shards / "nm-mnist-r0-n0.h5")
labelled = set(next(runs.glob("*alpha-100-*")).joinpath("labelled.txt").read_text().split())
ids = [str(name) for name in pairs.train.ids]
labelled_rows = np.array([row for row, name in enumerate(ids) if name in labelled])
other_rows = np.setdiff1d(np.arange(pairs.train.rows), labelled_rows)
rng = np.random.default_rng(7)
digits = np.repeat(clean.train.features("x")[labelled_rows].reshape(-1, 28, 28), DRAWS, 0)
x = rotate(digits, rng.uniform(-45, 45, len(digits))).reshape(len(digits), -1)
w = add_noise(digits, 0.5, rng).reshape(len(digits), -1)
write_shard(
    "drawn.h5",
    dataset="nm-drawn",
    classes=pairs.classes,
    modalities=pairs.modalities,
    preset="mnist",
    train=PartData(
        {name: np.concatenate([pairs.train.features(name)[other_rows], drawn]) for name, drawn in (("x", x), ("w", w))},
        np.concatenate([np.full(len(other_rows), -1), np.repeat(pairs.train.labels[labelled_rows], DRAWS)]),
        [ids[row] for row in other_rows] + [f"draw-{row}" for row in range(len(digits))],
    ),
    test=PartData(
        {name: pairs.test.features(name) for name in "xw"}, pairs.test.labels, [str(name) for name in pairs.test.ids]
    ),
)
PYTHON
for epochs in 10 50; do try --data ./drawn.h5 --labels all --epochs "$epochs"; done
