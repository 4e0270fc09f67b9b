"""Which rows to label next: those that cover what models are unsure of and no label is near.

A row weighs as much as opinions on it are uncertain or differ: the entropy of the mean of q(y|X), of the q(y|x_m) of
the single modalities, and of the labels propagated along a graph of similar rows (`trainer.data.propagation`), which no
network shapes. A part of the weight is equal for all rows: with few labels a model can be sure and wrong of whole kinds
of rows that no label is near. Rows are chosen to cover this weight (`trainer.inference.coverage`).

Similarity is that of the graph, in the space of features: a latent space that few labels shaped puts the unknown kind
next to a known one. A model that learns no labels has no such fault, and no opinions either: rows are chosen to cover
its latent space evenly. Both choices were made on validation parts (docs/guide/suggest.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import NEVER
from pipeline.shards.shard import Shard
from trainer.data.interface import Data
from trainer.data.propagation import propagated_labels
from trainer.data.selection import chosen_rows
from trainer.data.similarity import comparable_rows
from trainer.data.streaming import load
from trainer.inference.coverage import as_rows, choose_rows
from trainer.inference.network import Network
from trainer.inference.opinions import Opinions, entropy, read_opinions
from trainer.settings.run_settings import Settings

EQUAL_WEIGHT = 0.5  # of each row, over the mean of what uncertainty gives


@dataclass(frozen=True)
class TrainedOn:
    """A trained model, possibly of several replicas, with the settings of each replica."""

    network: Network
    settings: tuple[Settings, ...]


@dataclass(frozen=True)
class Suggestion:
    """A row to label, with what `Question` says of it.

    Attributes:
        row: its number in the training part.
        predicted: a class index; None if the models do not learn labels.
        probability: of that class, as `mmssl predict` gives it.
        disagreement: of all opinions on the row, in nats.
        distance: to the nearest row labelled or chosen before it; None if there is none.
    """

    row: int
    predicted: int | None
    probability: float | None
    disagreement: float | None
    distance: float | None


def suggest(
    models: Sequence[TrainedOn],
    shard: Shard,
    count: int,
    *,
    per_group: int | None = None,
    answers: Mapping[int, str | None] | None = None,
    seed: int = 0,
) -> list[Suggestion]:
    """The rows of a shard's training part that should be labelled next, the best first; fewer if there are no more.

    Args:
        models: of the same modalities and classes, trained on this shard; several are an ensemble.
        shard: with the answers of the models' settings in it.
        per_group: the most rows of one group.
        answers: further answers by row, None for never to be asked again: none of them is suggested.
        seed: of the samples that large shards are reduced to.

    Raises:
        UsageError: the models differ in their modalities or in whether they learn labels, or no row is left.
        DataError: the shard was damaged since it was opened.
    """
    first = models[0]
    learns = first.settings[0].learns_labels
    for other in models[1:]:
        if other.network.names != first.network.names or other.settings[0].learns_labels != learns:
            raise UsageError(
                "the models do not see the same modalities, or only some of them learn labels",
                "an ensemble is made of runs of one command: mmssl train ... --seeds 0..4",
            )
    answers = answers or {}
    labelled = as_rows(
        [*_labelled(models, shard, learns), *(row for row, label in answers.items() if label is not None)]
    )
    eligible = np.ones(shard.train.rows, np.bool_)
    eligible[labelled] = False
    eligible[[row for row, label in answers.items() if label is None]] = False
    eligible[list(_never(models))] = False
    if not eligible.any():
        raise UsageError(f"{shard.path}: every training row has its label, or is never to be asked about")
    classes = len(shard.classes) if learns else 0
    opinions = read_opinions([model.network for model in models], shard.train, classes)
    settings = first.settings[0].model_copy(update={"window": None})
    data = load([settings], [shard], torch.device("cpu")) if learns else None
    graph = None if data is None else _of_graph(models, data, shard)
    weights = np.ones(shard.train.rows)
    disagreement = None
    if graph is not None:
        uncertain = entropy((opinions.mean + graph) / 2)
        weights = uncertain / max(float(uncertain.mean()), 1e-12) + EQUAL_WEIGHT
        apart = opinions.uncertainty - opinions.disagreement  # the mean entropy of the models' opinions
        disagreement = np.maximum(uncertain - (apart + entropy(graph)) / 2, 0)
    vectors = opinions.latent if data is None else comparable_rows(lambda: data.training_features(0)).numpy()
    chosen = choose_rows(
        vectors, weights, labelled, eligible, count, groups=shard.train.groups, per_group=per_group, seed=seed
    )
    return [_suggestion(choice.row, choice.distance, opinions, disagreement) for choice in chosen]


def _suggestion(
    row: int, distance: float | None, opinions: Opinions, disagreement: NDArray[np.float64] | None
) -> Suggestion:
    if disagreement is None:
        return Suggestion(row, None, None, None, distance)
    best = int(opinions.mean_joint[row].argmax())
    return Suggestion(row, best, float(opinions.mean_joint[row, best]), float(disagreement[row]), distance)


def _labelled(models: Sequence[TrainedOn], shard: Shard, learns: bool) -> Iterable[int]:
    """The rows whose labels any of the models saw; of models that learn none, those that a person gave."""
    for settings in (settings for model in models for settings in model.settings):
        if learns:
            yield from chosen_rows(settings, shard).tolist()
        else:
            yield from (row for row, label in settings.answers if label != NEVER)


def _never(models: Sequence[TrainedOn]) -> set[int]:
    answers = (answer for model in models for settings in model.settings for answer in settings.answers)
    return {row for row, label in answers if label == NEVER}


def _of_graph(models: Sequence[TrainedOn], data: Data, shard: Shard) -> NDArray[np.float32]:
    """The labels propagated along the graph, `[N, K]`, from all rows whose labels any of the models saw."""
    rows = as_rows(list(_labelled(models, shard, learns=True)))
    (examples,) = data.examples
    known: Data = replace(data, examples=(replace(examples, labelled=examples.first + rows),))  # type: ignore[type-var]
    soft = propagated_labels(known, models[0].settings[0].neighbours)[0]
    return soft[: shard.train.rows].numpy()
