"""Shards whose every feature says its row, and their data streamed from disk."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from tests.support.training import (
    CLASSES,
    CPU,
    W,
    make_settings,
    turns,
)
from trainer.data.streaming import Streamed, load
from trainer.settings.run_settings import Settings

ROWS = 1200


def numbered(path: Path, rows: int = ROWS, width: int = 6, **changes: Any) -> Shard:
    """A shard whose every feature says its row: x is row / 2^16 (exact in float32), w is the row."""
    modalities = (Modality("x", width, "bernoulli"), W)

    def part(name: str, rows: int, first: int) -> PartData:
        row = np.arange(first, first + rows)
        features = {"x": np.repeat(row[:, None] / 2**16, width, 1), "w": np.repeat(row[:, None], 3, 1)}
        return PartData(features, turns(rows), [f"{name}-{r}" for r in range(rows)])

    content = {"train": part("train", rows, 0), "test": part("test", 50, 60_000)} | changes
    return write_shard(path, dataset="numbered", classes=CLASSES, modalities=modalities, **content)


def streaming_settings(shard: Shard, **changes: Any) -> Settings:
    """Settings of a run that streams its data."""
    return make_settings("ssmvae", shard, **{"window": 200, "labels": 30, **changes})


def streamed(stack: list[Settings], *shards: Shard) -> Streamed:
    """The streamed data of a stack on the CPU."""
    data = load(stack, shards if len(shards) > 1 else shards * len(stack), CPU)
    assert isinstance(data, Streamed)
    return data
