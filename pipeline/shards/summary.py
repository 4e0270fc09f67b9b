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
    """The range and mean of a modality over both parts, and how many rows of each lack it."""

    name: str
    width: int
    distribution: Distribution
    min: float
    mean: float
    max: float
    train_lacking: int
    test_lacking: int


@dataclass(frozen=True)
class Description:
    """The contents of a shard, for people; `unknown` counts the rows without a known class.

    `groups` is the number of different ones in both parts, or None if the shard names none.
    """

    path: Path
    dataset: str
    split: int | None
    train_rows: int
    test_rows: int
    labelled: int | None
    complete_train_rows: int
    groups: int | None
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
            modality.name,
            modality.width,
            modality.distribution,
            min(low),
            sum(total) / sum(size),
            max(high),
            int((~shard.train.has(modality.name)).sum()),
            int((~shard.test.has(modality.name)).sum()),
        )

    return Description(
        path=shard.path,
        dataset=shard.dataset,
        split=shard.split,
        train_rows=shard.train.rows,
        test_rows=shard.test.rows,
        labelled=None if mask is None else int(mask.sum()),
        complete_train_rows=int(np.logical_and.reduce([shard.train.has(m.name) for m in shard.modalities]).sum()),
        groups=_groups(shard),
        classes=tuple(count(label, name) for label, name in enumerate(shard.classes)),
        unknown=count(-1, "unknown"),
        modalities=tuple(summary(modality) for modality in shard.modalities),
        digest=shard.digest,
        digest_recorded=shard.digest_recorded,
        provenance=shard.provenance,
    )


def _groups(shard: Shard) -> int | None:
    named = [part.groups for part in (shard.train, shard.test) if part.groups is not None]
    return len(np.unique(np.concatenate(named))) if named else None
