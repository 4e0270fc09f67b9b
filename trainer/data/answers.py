"""A shard with the labels that a person gave a run: what the run trains on in place of the shard as its file has it."""

from dataclasses import replace

import numpy as np

from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import NEVER
from pipeline.shards.shard import Shard
from trainer.settings.run_settings import Settings


def answered(shard: Shard, settings: Settings) -> Shard:
    """The shard with the answers of a run's settings as labels of its training rows; the shard itself without any.

    Classes that only answers name come after the shard's own, in alphabetical order. The digest stays: it is that of
    the file.

    Raises:
        UsageError: an answer is about a row that the shard does not have.
    """
    unanswered = shard.original or shard
    given = [(row, label) for row, label in settings.answers if label != NEVER]
    if settings.answers and settings.answers[-1][0] >= unanswered.train.rows:
        raise UsageError(
            f"there is an answer about row {settings.answers[-1][0]:,}, but "
            f"{unanswered.path} has {unanswered.train.rows:,} training rows",
            "train on the data that the rows were chosen from (--data)",
        )
    if not given:
        return unanswered
    classes = (*unanswered.classes, *sorted({label for _, label in given} - set(unanswered.classes)))
    number = {name: k for k, name in enumerate(classes)}
    labels = np.array(unanswered.train.labels)
    labels[[row for row, _ in given]] = [number[label] for _, label in given]
    labels.flags.writeable = False
    return replace(unanswered, classes=classes, train=replace(unanswered.train, labels=labels), original=unanswered)
