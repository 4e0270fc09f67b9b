"""Describes a shard for people: counts of rows, labels and classes, and the range of every modality."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.shards.shard import Distribution, Modality, Shard


@dataclass(frozen=True)
class ClassCount:
    """The number of rows of a class; `labelled` is None if the shard has no mask."""

    name: str
    train: int
    test: int
    labelled: int | None


@dataclass(frozen=True)
class ModalitySummary:
    """The range and mean of a modality over both parts."""

    name: str
    width: int
    distribution: Distribution
    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class Description:
    """The contents of a shard, for people; `unknown` counts the rows without a known class."""

    path: Path
    dataset: str
    split: int | None
    train_rows: int
    test_rows: int
    labelled: int | None
    classes: tuple[ClassCount, ...]
    unknown: ClassCount
    modalities: tuple[ModalitySummary, ...]
    digest: str
    digest_recorded: bool
    provenance: dict[str, Any]


def describe(shard: Shard) -> Description:
    """Counts the rows and measures the ranges of a shard; reads all features once, in blocks.

    Raises:
        DataError: the file was damaged since it was opened.
    """
    mask = shard.train.labelled

    def count(label: int, name: str) -> ClassCount:
        train = shard.train.labels == label
        labelled = None if mask is None else int((train & mask).sum())
        return ClassCount(name, int(train.sum()), int((shard.test.labels == label).sum()), labelled)

    def summary(modality: Modality) -> ModalitySummary:
        blocks = [
            (float(b.min()), float(b.sum(dtype=np.float64)), float(b.max()), b.size)
            for part in (shard.train, shard.test)
            for b in part.blocks(modality.name)
        ]
        low, total, high, size = zip(*blocks, strict=True)
        return ModalitySummary(
            modality.name, modality.width, modality.distribution, min(low), sum(total) / sum(size), max(high)
        )

    return Description(
        path=shard.path,
        dataset=shard.dataset,
        split=shard.split,
        train_rows=shard.train.rows,
        test_rows=shard.test.rows,
        labelled=None if mask is None else int(mask.sum()),
        classes=tuple(count(label, name) for label, name in enumerate(shard.classes)),
        unknown=count(-1, "unknown"),
        modalities=tuple(summary(modality) for modality in shard.modalities),
        digest=shard.digest,
        digest_recorded=shard.digest_recorded,
        provenance=shard.provenance,
    )
