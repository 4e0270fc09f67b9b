"""Given labels that models which did not see them find improbable.

Each labelled row is judged by a model that was trained without the labels of its part. Its label is as doubtful as
another class is more probable than the given one: the margin p(given) - max p(other), by which rows are ranked in
confident learning (Northcutt et al. 2021, arXiv:1911.00068, section 3.2). p is the mean of q(y|X) and of the labels
propagated from the other parts along a graph of similar rows (`trainer.data.propagation`). On digits neither was
better alone, nor was the mean (results/2026-11-27-doubts).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.shards.shard import Shard
from trainer.data.propagation import propagated_labels
from trainer.data.selection import parts_of_labels
from trainer.data.streaming import load
from trainer.inference.opinions import Opinions, read_opinions
from trainer.inference.suggestions import TrainedOn


@dataclass(frozen=True)
class Doubt:
    """What models say of a row whose label they did not see.

    Attributes:
        row: its number in the training part.
        given: the class index of its label.
        probable: the most probable class other than the given one.
        probability: of the given class.
        other: of `probable`.
        opinions: by modality, the class that it alone points to; only of rows that have several.
        disagreement: of all opinions of the network, in nats.
    """

    row: int
    given: int
    probable: int
    probability: float
    other: float
    opinions: dict[str, int]
    disagreement: float

    @property
    def margin(self) -> float:
        """p(given) - p(probable), from -1 for surely wrong to 1."""
        return self.probability - self.other


def doubts(models: Sequence[TrainedOn], shard: Shard) -> list[Doubt]:
    """The labelled rows that were held out from any of the models, the most doubtful label first.

    Args:
        models: of one run, each trained without another part of its labels (setting `held_out`).
        shard: with the answers of the models' settings in it.

    Raises:
        DataError: the shard was damaged since it was opened.
    """
    found = [doubt for model in models for doubt in _as_doubts(judge(model, shard), model.network.names)]
    return sorted(found, key=lambda doubt: (doubt.margin, doubt.row))


@dataclass(frozen=True, eq=False)
class Judged:
    """A part of the labelled rows, judged by a model that did not see their labels.

    Attributes:
        rows: their numbers in the training part, `[n]`.
        given: the class indices of their labels, `[n]`.
        network: the opinions of the network.
        graph: the labels propagated to them from the other parts, `[n, K]`.
    """

    rows: NDArray[np.int64]
    given: NDArray[np.int64]
    network: Opinions
    graph: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.floating]:
        """The mean of network and graph, `[n, K]`."""
        mean: NDArray[np.floating] = (self.network.mean_joint + self.graph) / 2
        return mean


def judge(model: TrainedOn, shard: Shard) -> Judged:
    """Judges the labels that a model did not see (setting `held_out`).

    Raises:
        DataError: as for `doubts`.
    """
    (settings,) = model.settings
    assert settings.held_out is not None
    number, parts = settings.held_out
    part, labelled = parts_of_labels(settings, shard, parts)
    rows = labelled[part == number]
    opinions = read_opinions([model.network], shard.train, len(shard.classes), rows)
    data = load([settings.model_copy(update={"window": None})], [shard], torch.device("cpu"))
    graph = propagated_labels(data, settings.neighbours)[0, rows].numpy()
    return Judged(rows, shard.train.labels[rows].astype(np.int64), opinions, graph)


def margins(probabilities: NDArray[np.floating], given: NDArray[np.integer]) -> NDArray[np.float64]:
    """p(given) - max p(other) of each row, `[n]`.

    Args:
        probabilities: `[n, K]`.
        given: class indices, `[n]`.
    """
    every = np.arange(len(given))
    margin: NDArray[np.float64] = probabilities[every, given].astype(np.float64) - _others(probabilities, given).max(-1)
    return margin


def _others(probabilities: NDArray[np.floating], given: NDArray[np.integer]) -> NDArray[np.floating]:
    """The probabilities, with -1 in the place of the given class."""
    others = probabilities.copy()
    others[np.arange(len(given)), given] = -1
    return others


def _as_doubts(judged: Judged, names: Sequence[str]) -> list[Doubt]:
    probabilities, network = judged.probabilities, judged.network
    probable = _others(probabilities, judged.given).argmax(-1)
    return [
        Doubt(
            row=int(row),
            given=int(judged.given[k]),
            probable=int(probable[k]),
            probability=float(probabilities[k, judged.given[k]]),
            other=float(probabilities[k, probable[k]]),
            opinions={
                name: int(alone[k].argmax())
                for name, alone in zip(names, network.single[0], strict=False)
                if not np.isnan(alone[k, 0])
            },
            disagreement=float(network.disagreement[k]),
        )
        for k, row in enumerate(judged.rows)
    ]
