"""Which rows a run sees: its modalities, its labelled examples, its test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Modality, Shard
from trainer.nn.rng import seed_for
from trainer.settings.run_settings import Settings

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Rows of one replica in the flat tensors, and the ids of the labelled ones.

    `unlabelled` is the rest of the training set; all of it for a model that learns from no label, nothing for a
    classifier that is trained alone.
    """

    labelled: Rows
    unlabelled: Rows
    test: Rows
    labelled_ids: tuple[str, ...]


def index_rows(
    stack: Sequence[Settings], shards: Sequence[Shard]
) -> tuple[tuple[Modality, ...], dict[str, int], tuple[Examples, ...]]:
    """What a stack sees: the modalities, each shard's first row by its digest, and every replica's examples.

    Rows are counted over all shards: a shard's training rows, its test rows, the next shard's.

    Raises:
        DataError, UsageError: shards that do not fit together, a modality that is not there, a class without a label,
            more labels asked for than there are.
    """
    first = shards[0]
    modalities = choose_modalities(first, stack[0].modalities)
    offsets: dict[str, int] = {}
    examples = []
    rows = 0
    for settings, shard in zip(stack, shards, strict=True):
        if (choose_modalities(shard, settings.modalities), shard.classes) != (modalities, first.classes):
            raise DataError(f"{shard.path} differs from {first.path} in its modalities or classes: no common stack")
        if shard.digest not in offsets:
            offsets[shard.digest] = rows
            rows += shard.train.rows + shard.test.rows
        examples.append(_examples(settings, shard, offsets[shard.digest]))
    if len({len(own.unlabelled) == 0 for own in examples}) > 1:
        raise DataError(
            f"of {', '.join(sorted({str(shard.path) for shard in shards}))} some are labelled in every row, and some "
            "are not: no common stack",
            "train them one by one",
        )
    return modalities, offsets, tuple(examples)


def choose_modalities(shard: Shard, names: Sequence[str]) -> tuple[Modality, ...]:
    """The shard's modalities of these names, or all of them for no name."""
    known = {modality.name: modality for modality in shard.modalities}
    for name in names:
        if name not in known:
            raise UsageError(f"{shard.path} has no modality '{name}'", f"modalities: {', '.join(known)}")
    return tuple(known[name] for name in names) if names else shard.modalities


def leaves_unlabelled(settings: Settings, shard: Shard) -> bool:
    """Whether the run has unlabelled examples beside its labelled ones."""
    if settings.objective == "classifier":
        return False
    return not settings.learns_labels or len(choose_labelled(settings, shard)) < shard.train.rows


def _examples(settings: Settings, shard: Shard, offset: int) -> Examples:
    train, test = shard.train, shard.test
    labelled = choose_labelled(settings, shard)
    every = np.arange(train.rows)
    unlabelled = np.setdiff1d(every, labelled) if settings.learns_labels else every
    if settings.objective == "classifier":
        unlabelled = every[:0]
    known = np.flatnonzero(test.labels >= 0)
    if len(known) == 0:
        raise DataError(f"{shard.path}: no test example has a label, so there is nothing to measure accuracy on")
    return Examples(
        offset + labelled, offset + unlabelled, offset + train.rows + known, tuple(map(str, train.ids[labelled]))
    )


def choose_labelled(settings: Settings, shard: Shard) -> Rows:
    """Rows of `train` whose labels the run may see, ascending.

    A number is drawn equal per class (what is left over goes to classes drawn at random), a function of the seed; "all"
    takes every known label, "shard" those that the shard marks.
    """
    labels, known = shard.train.labels, np.flatnonzero(shard.train.labels >= 0)
    if settings.labels == "all":
        rows = known
    elif settings.labels == "shard":
        if shard.train.labelled is None:
            raise UsageError(f"{shard.path} marks no labelled examples", "say how many: --labels 100, or --labels all")
        rows = np.flatnonzero(shard.train.labelled)
    else:
        rows = _equal_per_class(labels, settings.labels, len(shard.classes), settings.seed, shard)
    counts = np.bincount(labels[rows], minlength=len(shard.classes))
    if not counts.all():
        names = [shard.classes[k] for k in np.flatnonzero(counts == 0)]
        raise DataError(
            f"{shard.path}: no labelled training example of class {', '.join(names[:5])}{' ...' * (len(names) > 5)}",
            "label at least one example of every class",
        )
    return np.sort(rows)


def _equal_per_class(labels: Rows, count: int, classes: int, seed: int, shard: Shard) -> Rows:
    if count < classes:
        raise UsageError(
            f"{count} labels cannot cover {classes} classes", f"ask for at least {classes}: --labels {classes}"
        )
    rng = np.random.default_rng(seed_for(seed, "labels"))
    quota = np.full(classes, count // classes)
    quota[rng.permutation(classes)[: count % classes]] += 1
    rows = []
    for k in range(classes):
        members = np.flatnonzero(labels == k)
        if len(members) < quota[k]:
            raise DataError(
                f"{shard.path}: {count} labels need {quota[k]} of class '{shard.classes[k]}', which has {len(members)}",
                "ask for fewer labels, or take them all: --labels all",
            )
        rows.append(rng.choice(members, quota[k], replace=False))
    return np.concatenate(rows)


def labelled_share(examples: Sequence[Examples]) -> Tensor:
    """|D_L| / (|D_L| + |D_U|) of each replica, `[R]`."""
    return torch.tensor([len(e.labelled) / (len(e.labelled) + len(e.unlabelled)) for e in examples])
