"""What a rival classifier is given: exactly the labels, training rows and test examples that a run has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Features, Part, Shard
from trainer.data.selection import Rows, choose_labelled, choose_modalities
from trainer.settings.run_settings import Settings

UNKNOWN = -1  # the label of a row whose label may not be seen; scikit-learn's semi-supervised methods use it too
BLOCK = 4096  # rows that are read at a time
LEAST_PROBABILITY = 1e-12  # a probability of 0 counts as this, so that its logarithm is finite
Subset = tuple[str, ...]
LogQ = NDArray[np.float32]  # log-probabilities of the classes, [N, K]


@dataclass(frozen=True)
class Size:
    """How large a task is, known before its features are read.

    Attributes:
        rows: the number of training rows, labelled or not.
        labelled: how many of them have a label.
        test: the number of test examples.
        width: the number of features of all modalities together.
        classes: the number of classes.
        modalities: the number of modalities.
        incomplete: the number of training and test rows that lack one.
    """

    rows: int
    labelled: int
    test: int
    width: int
    classes: int
    modalities: int
    incomplete: int = 0


@dataclass(frozen=True, eq=False)
class Task:
    """The data of one rival. A row that lacks a modality has the training rows' mean of it, as is usual.

    Attributes:
        modalities: the modalities' names.
        classes: the number of classes, K.
        train: the training rows' features by modality, `[N, D]` each.
        labels: the training rows' labels, `[N]`; `UNKNOWN` where the label may not be seen.
        test: the test examples' features by modality, `[T, D]` each.
        test_labels: the test examples' labels, `[T]`, all of them known.
        seed: the run's seed.
        device: where networks are trained.
        test_present: which test examples have a modality, bool `[T]`, for modalities that some of them lack.
    """

    modalities: tuple[str, ...]
    classes: int
    train: Mapping[str, Features]
    labels: Rows
    test: Mapping[str, Features]
    test_labels: Rows
    seed: int
    device: torch.device
    test_present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def labelled(self) -> Rows:
        """The training rows that have a label."""
        return np.flatnonzero(self.labels != UNKNOWN)

    def counted(self, given: Subset) -> NDArray[np.bool_]:
        """The test examples that have any of some modalities, `[T]`: those that scores are of."""
        everyone = np.ones(len(self.test_labels), np.bool_)
        counted: NDArray[np.bool_] = np.logical_or.reduce([self.test_present.get(name, everyone) for name in given])
        return counted

    @property
    def everything(self) -> Subset:
        """All modalities."""
        return self.modalities


def singles_and_all(modalities: Sequence[str]) -> list[Subset]:
    """Each modality alone, and all of them together if there are several."""
    return [(name,) for name in modalities] + ([tuple(modalities)] if len(modalities) > 1 else [])


def joined(features: Mapping[str, Features], given: Subset) -> Features:
    """The features of some modalities side by side, `[N, D]`."""
    return np.concatenate([features[name] for name in given], axis=1)


def size_of(settings: Settings, shard: Shard) -> Size:
    """The size of a run's task; reads no features."""
    modalities = choose_modalities(shard, settings.modalities)
    return Size(
        rows=shard.train.rows,
        labelled=len(choose_labelled(settings, shard)),
        test=len(_known(shard)),
        width=sum(modality.width for modality in modalities),
        classes=len(shard.classes),
        modalities=len(modalities),
        incomplete=sum(
            int((~np.logical_and.reduce([part.has(m.name) for m in modalities])).sum())
            for part in (shard.train, shard.test)
        ),
    )


def load_task(
    settings: Settings, shard: Shard, device: torch.device | None = None, labelled_only: bool = False
) -> Task:
    """Reads the data of a run's task.

    Args:
        device: where networks are trained; None for the CPU.
        labelled_only: whether the unlabelled training rows are left out.

    Raises:
        DataError, UsageError: the shard has no such labels or modalities, or is damaged.
    """
    modalities = tuple(modality.name for modality in choose_modalities(shard, settings.modalities))
    labelled, test = choose_labelled(settings, shard), _known(shard)
    rows = labelled if labelled_only else np.arange(shard.train.rows)
    labels = np.full(shard.train.rows, UNKNOWN, np.int64)
    labels[labelled] = shard.train.labels[labelled]
    lacking = {*shard.train.present, *shard.test.present}
    means = {name: _mean(shard.train, name) for name in modalities if name in lacking}
    return Task(
        modalities=modalities,
        classes=len(shard.classes),
        train=_filled(_read(shard.train, modalities, rows), shard.train, rows, means),
        labels=labels[rows],
        test=_filled(_read(shard.test, modalities, test), shard.test, test, means),
        test_labels=shard.test.labels[test],
        seed=settings.seed,
        device=device or torch.device("cpu"),
        test_present={name: present[test] for name, present in shard.test.present.items() if name in modalities},
    )


def log_of(probabilities: NDArray[np.floating]) -> LogQ:
    """The logarithm of probabilities `[N, K]`; those below `LEAST_PROBABILITY` count as this."""
    return np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY)).astype(np.float32)


def _known(shard: Shard) -> Rows:
    known = np.flatnonzero(shard.test.labels >= 0)
    if len(known) == 0 and shard.test.rows:
        raise DataError(f"{shard.path}: no test example has a label, so there is nothing to measure accuracy on")
    return known


def _mean(part: Part, modality: str) -> Features:
    """The mean of a modality over the rows that have it, `[D]`; the others hold zeros."""
    total = sum(block.sum(0, dtype=np.float64) for block in part.blocks(modality))
    return np.asarray(total / max(int(part.has(modality).sum()), 1), np.float32)


def _filled(
    features: dict[str, Features], part: Part, rows: Rows, means: Mapping[str, Features]
) -> dict[str, Features]:
    return {
        name: np.where(part.has(name)[rows, np.newaxis], values, means[name]) if name in part.present else values
        for name, values in features.items()
    }


def _read(part: Part, modalities: Subset, rows: Rows) -> dict[str, Features]:
    """The features of some rows, in ascending order; what lies between them is read, but not kept."""
    kept: dict[str, list[Features]] = {name: [] for name in modalities}
    starts = range(0, part.rows, BLOCK)
    pieces = part.pieces(modalities, (slice(start, start + BLOCK) for start in starts))
    for start, piece in zip(starts, pieces, strict=True):
        inside = rows[(rows >= start) & (rows < start + BLOCK)] - start
        for name, features in piece.items():
            kept[name].append(features[inside])
    return {name: np.concatenate(blocks) for name, blocks in kept.items()}
