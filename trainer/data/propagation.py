"""Propagated labels: the labels of a few rows, spread to all training rows along a graph of similar rows.

Zhou et al. 2004 (learning with local and global consistency), eq. 4, along a graph S (`trainer.data.neighbour_graph`):

    F <- alpha S F + (1 - alpha) Y      Y [N, K], the given labels; each class weighs the same
    F <- F / (sums of its columns)      each class has the same mass, so that no frequent one swallows its neighbours
    P = F / (sums of its rows)

The graph of several modalities is a mean of two (Zhou and Burges 2007, a random walk that changes graphs): that of
all modalities joined, which sees everything, and that of what they share (`trainer.data.shared_components`), which the
noise of none of them reaches. How sure the labels are that spread along each says how much each counts. On some data
another graph is better: that of one modality, where the others are mostly noise; the mean of all joined and of each,
where each modality tells some classes apart and none tells all. Held-out labels choose.
A graph sees features only: no network shapes it, so it cannot confirm a classifier's own mistakes.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from trainer.data.interface import Data
from trainer.data.neighbour_graph import Check, mean_graph, neighbour_graph
from trainer.data.shared_components import shared_components
from trainer.data.similarity import Read, comparable_rows
from trainer.nn.labels import certainty, one_hot, sharpened
from trainer.nn.presence import given, present_rows

ALPHA, ITERATIONS = 0.99, 60
_TINY = 1e-30
# The names of graphs that are not of one modality alone; no modality can be called so.
USUAL, JOINED, MEAN, SHARED = "", "\0joined", "\0mean", "\0shared"
_DESCRIPTIONS = {
    JOINED: "the neighbours in all modalities joined",
    MEAN: "the neighbours in all modalities joined and those in each",
    SHARED: "the neighbours in what the modalities share",
}
_FOLDS, _CLEARLY = 5, 1.5  # of the labels, to choose a graph; standard errors
_SHARPNESS = (1, 1.5, 2, 3, 4, 6, 8)  # those that are tried: a mean of graphs is less sure than each of them
_MANY = 10_000  # rows from which on the work is announced
_KEPT_ROWS = 100_000  # of which graphs are kept: some 150 MB

_log = logging.getLogger(__name__)


def propagated_labels(data: Data, neighbours: int, check: Check = lambda: None) -> Tensor:
    """Each replica's soft labels of its shard's training rows, `[R, N, K]`; those of labelled rows are their own.

    N is the length of the longest training part; what lies beyond a shorter one is never read. A row that no label
    reaches has 1/K everywhere.

    Args:
        neighbours: k, the number of neighbours of each row.
        check: is called between pieces of the work, and may raise.

    Raises:
        UsageError: there are too many rows to compare all pairs, and the library for more is not installed.
    """
    replicas_of: dict[int, list[int]] = {}  # by the first row of their shard: these share a graph
    for replica, examples in enumerate(data.examples):
        replicas_of.setdefault(examples.first, []).append(replica)
    classes, labels = len(data.classes), {}
    for replicas in replicas_of.values():
        made = _KEPT.graphs(data, replicas[0], neighbours, check)
        for replica in replicas:
            places = torch.from_numpy(data.examples[replica].labelled).to(data.label.device)
            labelled, label = data.training_rows(places), one_hot(data.label[places], classes)
            graphs = made if USUAL in made else {USUAL: blended(made[JOINED], made[SHARED], labelled, label), **made}
            name = choose(graphs, labelled, label)
            if name != USUAL:
                graph = _DESCRIPTIONS.get(name, f"the neighbours in {name} alone")
                _log.info("propagating labels along %s, which foretell held-out labels better", graph)
            labels[replica] = propagate(graphs[name], labelled, label)
    longest = max(len(soft) for soft in labels.values())
    result = next(iter(labels.values())).new_full((len(labels), longest, classes), 1 / classes)
    for replica, soft in labels.items():
        result[replica, : len(soft)] = soft
    return result


def candidate_graphs(read: Read, data: Data, neighbours: int, check: Check) -> dict[str, Tensor]:
    """All graphs of some rows, by name: of one modality one, `USUAL`.

    Of several, `JOINED`, `SHARED`, that of each modality by its name, and `MEAN`, that of all of these but `SHARED`.
    What is usual depends on the labels (`blended`).
    """
    joined = neighbour_graph(comparable_rows(read), neighbours, check)
    if len(data.modalities) == 1:
        return {USUAL: joined}
    components = shared_components(read, check)
    shared = neighbour_graph(components, neighbours, check) if components.any() else joined  # no row has two modalities
    alone = {
        m.name: neighbour_graph(comparable_rows(partial(_only, read, m.name)), neighbours, check)
        for m in data.modalities
    }
    return {JOINED: joined, SHARED: shared, **alone, MEAN: mean_graph([joined, *alone.values()])}


def blended(joined: Tensor, shared: Tensor, rows: Tensor, label: Tensor) -> Tensor:
    """w S of all joined + (1 - w) S of what is shared,  w = 2 c / c' - 1, at least 0 and at most 1.

    c and c' are how certain the labels are that spread along each, a mean over the unlabelled rows. Where modalities
    are noisy views of one thing, what they share holds rows together far better than all joined, whose neighbours are
    partly chance. Where each sees what the others cannot, it does not, and tells less.

    Args:
        rows, label: the labelled rows `[L]` and their labels (one-hot, `[L, K]`).
    """
    unlabelled = torch.ones(len(joined), dtype=torch.bool, device=rows.device)
    unlabelled[rows] = False
    c, of_shared = (certainty(propagate(graph, rows, label)[unlabelled]).mean() for graph in (joined, shared))
    weight = float((2 * c / of_shared - 1).nan_to_num(1).clamp(0, 1))
    return mean_graph([joined, shared], [weight, 1 - weight])


class _Kept:
    """Keeps the graphs of the rows that were seen last, for other seeds and other labels of the same rows."""

    def __init__(self) -> None:
        self._last: tuple[bytes, dict[str, Tensor]] | None = None

    def graphs(self, data: Data, replica: int, neighbours: int, check: Check) -> dict[str, Tensor]:
        """`candidate_graphs`, made only if the rows or the number of neighbours are not those of the last time."""
        read, rows = partial(data.training_features, replica), data.examples[replica].training_rows
        key = _fingerprint(read, neighbours) if rows <= _KEPT_ROWS else None
        check()  # also where the graphs are kept ones, whose making would have asked
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        self._last = None  # before there are others
        if rows >= _MANY:
            _log.info(
                "propagating labels: finding the %d nearest neighbours of each of %s rows", neighbours, f"{rows:,}"
            )
        graphs = candidate_graphs(read, data, neighbours, check)
        if key is not None:
            self._last = key, graphs
        return graphs


_KEPT = _Kept()


def _fingerprint(read: Read, neighbours: int) -> bytes:
    """Tells rows, and where they lie, from others."""
    digest = hashlib.blake2b(str(neighbours).encode())
    for block in read():
        for name, x in block.items():
            rows = present_rows(block, name)
            digest.update(f"{name} {tuple(x.shape)} {x.device} {rows is None}".encode())
            for values in (x, rows):
                if values is not None:
                    digest.update(values.contiguous().cpu().numpy().data)
    return digest.digest()


def _only(read: Read, name: str) -> Iterator[Mapping[str, Tensor]]:
    return (given(block, [name]) for block in read())


def choose(graphs: Mapping[str, Tensor], rows: Tensor, label: Tensor) -> str:
    """The name of the graph to use: the first one, unless another foretells held-out labels clearly better.

    Clearly better: the sum of the differences of their errors is more than one and a half standard errors, each the
    root of the sum of their squares; the best of several is one ahead by chance too often.
    """
    errors = {name: held_out_errors(graph, rows, label) for name, graph in graphs.items()}
    first, best = next(iter(errors)), min(errors, key=lambda name: float(errors[name].sum()))
    gain = errors[first] - errors[best]
    return best if gain.sum() > _CLEARLY * gain.square().sum().sqrt() else first


def held_out_errors(graph: Tensor, rows: Tensor, label: Tensor) -> Tensor:
    """The Brier score |t - y|^2 of each label's propagated one t, `[L]`, sharpened as suits the graph best.

    It tells more from few labels than how many are right: a graph is unsure before it is wrong.
    """
    soft = held_out(graph, rows, label)
    errors = [(sharpened(soft, s) - label).square().sum(-1) for s in _SHARPNESS]
    return min(errors, key=lambda error: float(error.sum()))


def held_out(graph: Tensor, rows: Tensor, label: Tensor) -> Tensor:
    """What the others say of each label, `[L, K]`: each is held out once, a fifth of each class at a time.

    The labels themselves if a class has one only, because then nothing can be held out.

    Args:
        rows, label: the labelled rows `[L]` and their labels (one-hot, `[L, K]`).
    """
    number = (label.cumsum(0) * label).sum(-1).long() - 1  # of each label within its class
    folds = min(_FOLDS, int(label.sum(0).min()))
    soft = label.clone()
    for fold in range(folds if folds > 1 else 0):
        out = number % folds == fold
        soft[out] = propagate(graph, rows[~out], label[~out])[rows[out]]
    return soft


def propagate(graph: Tensor, rows: Tensor, label: Tensor) -> Tensor:
    """P `[N, K]` along S, from the labels (one-hot, `[L, K]`) of the rows `[L]`, which keep them."""
    labels = label.new_zeros(len(graph), label.shape[-1])
    labels[rows] = label / label.sum(0).clamp_min(1)
    spread = labels
    for _ in range(ITERATIONS):
        spread = ALPHA * (graph @ spread) + (1 - ALPHA) * labels
    spread = spread / spread.sum(0).clamp_min(_TINY)
    reached = spread.sum(-1, keepdim=True)
    soft = torch.where(reached > 0, spread / reached.clamp_min(_TINY), 1 / label.shape[-1])
    soft[rows] = label
    return soft
