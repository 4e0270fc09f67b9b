"""Which rows a run sees: its modalities, its labelled examples, its test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.schema import NEVER
from pipeline.shards.shard import Modality, Shard
from trainer.nn.rng import seed_for
from trainer.settings.run_settings import Settings

Rows = NDArray[np.int64]
VALUE_BYTES = 4  # a value of a feature: float32


@dataclass(frozen=True)
class Examples:
    """The rows of one replica in the flat tensors, and the ids of its labelled examples.

    `unlabelled` is the rest of the training set. It is the whole training set for a model that does not learn from
    labels, and empty for a classifier that is trained alone. The shard's training part is `training_rows` long and
    begins at row `first`. `per_class` counts the labelled examples of each class.
    """

    labelled: Rows
    unlabelled: Rows
    test: Rows
    labelled_ids: tuple[str, ...]
    first: int = 0
    training_rows: int = 0
    per_class: tuple[int, ...] = ()


def index_rows(
    stack: Sequence[Settings], shards: Sequence[Shard]
) -> tuple[tuple[Modality, ...], dict[str, int], tuple[Examples, ...]]:
    """Assigns rows of the flat tensors to the shards and replicas of a stack.

    Rows are numbered across all shards: the training rows of a shard, then its test rows, then the next shard.

    Returns:
        The modalities the stack sees, the first row of each shard by its digest, and each replica's examples.

    Raises:
        DataError, UsageError: the shards do not fit together, a modality does not exist, a class has no label, or there
            are fewer labels than asked for.
    """
    first = shards[0]
    modalities = choose_modalities(first, stack[0].modalities)
    offsets: dict[str, int] = {}
    examples = []
    rows = 0
    for settings, shard in zip(stack, shards, strict=True):
        if (choose_modalities(shard, settings.modalities), shard.classes) != (modalities, first.classes):
            raise DataError(
                f"{shard.path} differs from {first.path} in its modalities or classes: they cannot share a stack"
            )
        if shard.digest not in offsets:
            offsets[shard.digest] = rows
            rows += shard.train.rows + shard.test.rows
        examples.append(_examples(settings, shard, offsets[shard.digest]))
    if len({len(replica.unlabelled) == 0 for replica in examples}) > 1:
        raise DataError(
            f"{', '.join(sorted({str(shard.path) for shard in shards}))} cannot share a stack: in some of them every "
            "training row is labelled, in others not",
            "train them one by one",
        )
    return modalities, offsets, tuple(examples)


def choose_modalities(shard: Shard, names: Sequence[str]) -> tuple[Modality, ...]:
    """The shard's modalities with these names, in this order; all of them if no names are given.

    Raises:
        UsageError: the shard has no modality of that name.
    """
    known = {modality.name: modality for modality in shard.modalities}
    for name in names:
        if name not in known:
            raise UsageError(f"{shard.path} has no modality '{name}'", f"modalities: {', '.join(known)}")
    return tuple(known[name] for name in names) if names else shard.modalities


def leaves_unlabelled(settings: Settings, shard: Shard) -> bool:
    """Whether the run has unlabelled examples to train on."""
    if settings.objective == "classifier":
        return False
    return not settings.learns_labels or len(choose_labelled(settings, shard)) < shard.train.rows


def check_examples(settings: Settings, shard: Shard) -> None:
    """Checks, before any work, that a run finds its modalities, a label of every class, and something to be tested on.

    Raises:
        DataError, UsageError: as for `index_rows`.
    """
    choose_modalities(shard, settings.modalities)
    _examples(settings, shard, 0)


def _examples(settings: Settings, shard: Shard, offset: int) -> Examples:
    train, test = shard.train, shard.test
    labelled = choose_labelled(settings, shard)
    all_rows = np.arange(train.rows)
    unlabelled = np.setdiff1d(all_rows, labelled) if settings.learns_labels else all_rows
    if settings.objective == "classifier":
        unlabelled = all_rows[:0]
    known = np.flatnonzero(test.labels >= 0)
    if test.rows and len(known) == 0:
        raise DataError(f"{shard.path}: no test example has a label, so there is nothing to measure accuracy on")
    return Examples(
        labelled=offset + labelled,
        unlabelled=offset + unlabelled,
        test=offset + train.rows + known,
        labelled_ids=tuple(map(str, train.ids[labelled])),
        first=offset,
        training_rows=train.rows,
        per_class=tuple(np.bincount(train.labels[labelled], minlength=len(shard.classes)).tolist()),
    )


def choose_labelled(settings: Settings, shard: Shard) -> Rows:
    """The training rows whose labels the run may see, in ascending order.

    If `labels` is a number, equally many are drawn per class, depending on the seed; a remainder goes to classes drawn
    at random. "all" takes every known label, "shard" the examples that the shard marks. Of these, the ones that the
    shard's file has, not those that a person gave: all of a person's answers join them. The part that is held out, if
    any, leaves them.

    Args:
        shard: with the settings' answers in it (`trainer.data.answers`).

    Raises:
        DataError: a class has no labelled example, or fewer than needed. Models that do not learn labels need none at
            all.
        UsageError: the shard marks no examples, or the number is smaller than the number of classes.
    """
    rows = chosen_rows(settings, shard)
    if settings.held_out is not None:
        part, parts = settings.held_out
        rows = rows[parts_of_labels(settings, shard, parts)[0] != part]
    labels = shard.train.labels
    counts = np.bincount(labels[rows], minlength=len(shard.classes))
    if not counts.all() and (settings.learns_labels or len(rows)):
        missing, known = np.flatnonzero(counts == 0), np.bincount(labels[labels >= 0], minlength=len(shard.classes))
        names = [shard.classes[k] for k in missing]
        raise DataError(
            f"{shard.path}: no labelled training example of class {', '.join(names[:5])}{' ...' * (len(names) > 5)}",
            f"--labels {2 * len(shard.classes)} draws equally many of every class from all known labels"
            if known[missing].all() and settings.labels not in ("all", 0)
            else "label at least one example of every class: mmssl label RUN asks about rows worth it, and mmssl train "
            "jmvae --labels 0 makes a RUN that needs no label",
        )
    return rows


def chosen_rows(settings: Settings, shard: Shard) -> Rows:
    """The rows of `choose_labelled` before any is held out, and whether or not every class has one.

    Raises:
        DataError, UsageError: as there.
    """
    unanswered = shard.original or shard
    labels = unanswered.train.labels
    if settings.labels == "all":
        rows = np.flatnonzero(labels >= 0)
    elif settings.labels == "shard":
        if unanswered.train.labelled is None:
            raise UsageError(f"{shard.path} marks no labelled examples", "say how many: --labels 100, or --labels all")
        rows = np.flatnonzero(unanswered.train.labelled)
    elif settings.labels == 0:
        rows = np.empty(0, np.int64)
    else:
        rows = _equal_per_class(labels, settings.labels, len(unanswered.classes), settings.seed, unanswered)
    answered = [row for row, label in settings.answers if label != NEVER]
    return np.union1d(rows, np.array(answered, np.int64))


def parts_of_labels(settings: Settings, shard: Shard, parts: int) -> tuple[Rows, Rows]:
    """Divides the labelled rows of a run into parts in which the classes are as equal as can be.

    Returns:
        The part of each labelled row, `[L]`, -1 for the only one of its class, which is never held out; and the rows.
    """
    rows = chosen_rows(settings, shard)
    rng, part = np.random.default_rng(seed_for(settings.seed, "parts")), np.full(len(rows), -1, np.int64)
    for k in range(len(shard.classes)):
        members = np.flatnonzero(shard.train.labels[rows] == k)
        if len(members) > 1:
            part[rng.permutation(members)] = (np.arange(len(members)) + rng.integers(parts)) % parts
    return part, rows


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
