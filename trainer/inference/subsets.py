"""What is measured of a model for its card, for each subset of the modalities: scores, thresholds, unlikeness.

Every single modality, all but one, and all have an entry of their own. Between them there may be very many subsets, so
those of one size share an entry, measured on a few of them together.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.shards.shard import Part, Shard
from trainer.evaluation.evaluate import BATCH
from trainer.evaluation.metrics import score
from trainer.inference.abstention import at_threshold, curve, threshold_for
from trainer.inference.card import AbstentionCard, SubsetCard
from trainer.inference.network import Network
from trainer.inference.unlikeness import LEAST_ROWS, NEIGHBOURS, Passes, Reference, make_reference, percentiles

MOST_POOLED = 6  # subsets of one size that are measured together
MOST_ROWS = 1000  # training rows that a subset is compared with; 800 of 1,400 did as well as all
MOST_LATENTS = 20_000  # over all subsets
_TINY = 1e-30  # the least probability, whose logarithm is finite

Given = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One entry: the subsets it is measured on, and whether it is that one subset's own."""

    of: tuple[Given, ...]
    own: bool

    @property
    def given(self) -> Given:
        """As in the card: empty for a pooled entry."""
        return self.of[0] if self.own else ()


@dataclass(frozen=True)
class Abstain:
    """When to abstain: below a probability, or so that the rest reaches an accuracy; neither for never."""

    below: float | None = None
    target: float | None = None


def entries(names: Sequence[str]) -> list[Entry]:
    """The entries of a card, smallest subsets first."""
    total = len(names)
    found = []
    for size in range(1, total + 1):
        if size in (1, total - 1, total):
            found += [Entry((given,), own=True) for given in itertools.combinations(names, size)]
        else:
            found.append(Entry(_some(names, size), own=False))
    return found


def _some(names: Sequence[str], size: int) -> tuple[Given, ...]:
    """A few of the subsets of one size, all if there are few; the same ones each time."""
    if math.comb(len(names), size) <= MOST_POOLED:
        return tuple(itertools.combinations(names, size))
    chance, chosen = random.Random(size), dict[Given, None]()
    while len(chosen) < MOST_POOLED:
        chosen[tuple(sorted(chance.sample(list(names), size), key=list(names).index))] = None
    return tuple(chosen)


def measure(network: Network, shard: Shard, abstain: Abstain) -> tuple[tuple[SubsetCard, ...], dict[int, Reference]]:
    """The card's entries, measured on the shard's test part, and the references by their numbers.

    Raises:
        DataError: the shard was damaged since it was opened.
    """
    wanted = entries(network.names)
    most = min(MOST_ROWS, MOST_LATENTS // sum(entry.own for entry in wanted))
    references: dict[int, Reference] = {}
    cards: dict[int, SubsetCard] = {}
    with network.computing():
        complete: torch.Tensor | None = None
        for number in reversed(range(len(wanted))):  # all modalities first: pooled entries compare with them
            entry = wanted[number]
            known: list[float] = []
            passes = _training_passes(network, shard, entry, most)
            latents = passes.latent.half().float() if entry.own else complete
            if latents is not None and latents.shape[1] > NEIGHBOURS and passes.latent.shape[1] > 1:
                references[number] = make_reference(passes, latents, network.names)
                known = references[number].scores(passes, network.names, skip=1).tolist()
                if number == len(wanted) - 1:
                    complete = latents
            cards[number] = _measure(network, shard, entry, references.get(number), known, abstain)
    return tuple(cards[number] for number in sorted(cards)), references


def _training_passes(network: Network, shard: Shard, entry: Entry, most: int) -> Passes:
    """The passes of training rows that have an entry's modalities."""
    parts = []
    for given in entry.of:
        rows = np.flatnonzero(_have(shard.train, given))
        count = max(1, most // len(entry.of))
        if len(rows) > count:
            rows = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
        for features in _blocks(shard.train, given, rows):
            parts.append(network.answers(network.batch(features))[1])
    return _joined(parts, network)


def _joined(parts: Sequence[Passes], network: Network) -> Passes:
    """Passes over several batches as one; a batch has no surprise of modalities that it was not given."""
    if not parts:
        return Passes(torch.empty(network.noise.replicas, 0, 1, device=network.device), {})
    names = [name for name in network.names if any(name in part.surprise for part in parts)]
    surprise = {
        name: torch.cat(
            [part.surprise.get(name, torch.full_like(part.latent[..., 0], torch.nan)) for part in parts], dim=1
        )
        for name in names
    }
    return Passes(torch.cat([part.latent for part in parts], dim=1), surprise)


def _measure(
    network: Network, shard: Shard, entry: Entry, reference: Reference | None, known: list[float], abstain: Abstain
) -> SubsetCard:
    probabilities, labels, scores = [], [], list[float]()
    for given in entry.of:
        rows = np.flatnonzero(_have(shard.test, given))
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            (features,) = _blocks(shard.test, given, some)
            found, passes = network.answers(network.batch(features))
            label = shard.test.labels[some]
            if reference is not None:  # a row without a label may be of a class that nobody knows
                scores += reference.scores(passes, network.names)[torch.from_numpy(label >= 0)].tolist()
            probabilities.append(found.cpu().numpy()[label >= 0])
            labels.append(label[label >= 0])
    source: Literal["train", "test"] = "test" if len(scores) >= LEAST_ROWS else "train"
    ranks = percentiles(np.asarray(scores if source == "test" else known, np.float64))
    card = SubsetCard(given=entry.given, size=len(entry.of[0]), known=ranks, known_from=source if ranks else None)
    label = np.concatenate(labels) if labels else np.empty(0, np.int64)
    if not len(label):
        return card.model_copy(update={"abstention": _threshold(np.empty(0), np.empty(0, np.bool_), abstain)})
    probability = np.concatenate(probabilities)
    result = score("+".join(entry.of[0]), "", np.log(np.maximum(probability, _TINY)), label)
    best, right = probability.max(-1).astype(np.float64), probability.argmax(-1) == label
    return card.model_copy(
        update={
            "rows": len(label),
            "accuracy": result.accuracy,
            "nll": result.nll,
            "ece": result.ece,
            "abstention": _threshold(best, right, abstain),
            "curve": curve(best, right),
        }
    )


def _threshold(best: NDArray[np.float64], right: NDArray[np.bool_], abstain: Abstain) -> AbstentionCard | None:
    if abstain.below is not None:
        return at_threshold(best, right, abstain.below)
    return threshold_for(best, right, abstain.target) if abstain.target is not None and len(best) else None


def _have(part: Part, given: Given) -> NDArray[np.bool_]:
    """Which rows have all of some modalities."""
    rows: NDArray[np.bool_] = np.logical_and.reduce([part.has(name) for name in given])
    return rows


def _blocks(part: Part, given: Given, rows: NDArray[np.int64]) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    for start in range(0, len(rows), BATCH):
        yield read_rows(part, given, rows[start : start + BATCH])


def read_rows(part: Part, names: Sequence[str], rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Reads the features `[n, D]` of some rows in ascending order, consecutive ones together.

    Raises:
        DataError: the file was damaged since it was opened.
    """
    ends = np.flatnonzero(np.diff(rows) != 1) + 1
    runs = [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, ends)]
    pieces = list(part.pieces(names, runs))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
