"""A small valid shard, of which a test changes one thing."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard


class MakeShard(Protocol):
    """Writes a small valid shard; keywords replace what `write_shard` is given."""

    def __call__(self, path: Path | None = None, **changes: Any) -> Shard: ...


class MakePart(Protocol):
    """`part_data`."""

    def __call__(self, name: str, rows: int, seed: int = 0, labelled: bool = False) -> PartData: ...


def part_data(name: str, rows: int, seed: int = 0, labelled: bool = False) -> PartData:
    """Rows of three classes over two modalities, x (4, in [0, 1]) and w (3, >= 0), with every class and one unknown."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 2, -1], rng.integers(0, 3, rows)])[:rows]
    return PartData(
        features={"x": rng.random((rows, 4), dtype=np.float32), "w": 3 * rng.random((rows, 3), dtype=np.float32)},
        labels=labels,
        ids=[f"{name}-{row}" for row in range(rows)],
        labelled=(labels >= 0) & (np.arange(rows) % 2 == 0) if labelled else None,
    )


def small_shard(path: Path, **changes: Any) -> Shard:
    """Twenty training and ten test rows of `part_data`, written to the path."""
    content: dict[str, Any] = {
        "dataset": "small",
        "classes": ["cup", "bowl", "Löffel"],
        "modalities": [Modality("x", 4, "bernoulli"), Modality("w", 3, "nonnegative")],
        "train": part_data("train", 20, labelled=True),
        "test": part_data("test", 10, seed=1),
        "split": 3,
        "provenance": {"made by": "a test"},
    }
    return write_shard(path, **(content | changes))
