"""What `mmssl shards inspect` says of a shard."""

from pathlib import Path

import numpy as np

from pipeline.shards.shard import Modality
from pipeline.shards.summary import describe
from pipeline.shards.writing import PartData, write_shard


def test_description(tmp_path: Path) -> None:
    train = PartData({"x": np.array([[0, 1], [2, 3], [4, 5]])}, [0, 1, -1], ["a", "b", "c"], [True, False, False])
    test = PartData({"x": np.array([[7, 10]])}, [1], ["d"])
    modalities = [Modality("x", 2, "nonnegative")]
    path = tmp_path / "s.h5"
    shard = write_shard(path, dataset="d", classes=["p", "q"], modalities=modalities, train=train, test=test)
    summary = describe(shard)
    assert (summary.train_rows, summary.test_rows, summary.labelled) == (3, 1, 1)
    assert [(c.name, c.train, c.test, c.labelled) for c in summary.classes] == [("p", 1, 0, 1), ("q", 1, 1, 0)]
    assert (summary.unknown.train, summary.unknown.test) == (1, 0)
    (x,) = summary.modalities
    assert (x.name, x.width, x.min, x.mean, x.max) == ("x", 2, 0.0, 4.0, 10.0)
    assert summary.digest == shard.digest
