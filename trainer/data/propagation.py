"""Propagated labels: the labels of a few rows, spread to all training rows along a graph of similar rows.

Zhou et al. 2004 (learning with local and global consistency), eq. 4, with W between nearest neighbours alone:

    S = D^(-1/2) W D^(-1/2)             W [N, N] symmetric, D its row sums
    F <- alpha S F + (1 - alpha) Y      Y [N, K], the given labels; each class weighs the same
    F <- F / (sums of its columns)      each class has the same mass, so that no frequent one swallows its neighbours
    P = F / (sums of its rows)

W_ij is the cubed similarity between i and each of its nearest neighbours j: their cosine over all modalities joined,
each of which is centred and divided by the root of its mean squared length, so that all of them count alike, however
wide they are (where rows lack modalities: `joined`).
Where one modality is mostly noise, the graph of another one alone is better: held-out labels choose.
A graph sees features only: no network shapes it, so it cannot confirm a classifier's own mistakes.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.runtime.errors import UsageError
from trainer.data.interface import Data
from trainer.nn.labels import one_hot
from trainer.nn.presence import Incomplete, given, present_rows

ALPHA, ITERATIONS, POWER = 0.99, 30, 3
EXACT_ROWS = {"cpu": 200_000, "cuda": 2_000_000}  # beyond these, comparing all pairs takes hours
PROJECTED = 256  # values per row of a projection
_SIMILARITIES = 2**26  # cosines in memory at a time: 256 MiB
_TINY = 1e-30
_FOLDS = 5  # of the labels, to choose a graph
_MANY = 10_000  # rows from which on the work is announced
Read = Callable[[], Iterable[Mapping[str, Tensor]]]
Check = Callable[[], None]
Moments = tuple[dict[str, Tensor], dict[str, Tensor]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Graph:
    """A symmetric graph of neighbours.

    Attributes:
        neighbours: the rows of each row's k nearest others, `[N, k]`.
        weights: S's value of each of these edges, `[N, k]`; an edge listed from both ends counts twice.
    """

    neighbours: Tensor
    weights: Tensor

    def __matmul__(self, values: Tensor) -> Tensor:
        """S F, `[N, C] -> [N, C]`."""
        outgoing = torch.einsum("nk,nkc->nc", self.weights, values[self.neighbours])
        sent = self.weights.unsqueeze(-1) * values.unsqueeze(1)  # [N, k, C]
        return outgoing.index_add_(0, self.neighbours.flatten(), sent.flatten(0, 1))


def propagated_labels(data: Data, neighbours: int, streamed: bool = False, check: Check = lambda: None) -> Tensor:
    """Each replica's soft labels of its shard's training rows, `[R, N, K]`; those of labelled rows are their own.

    N is the length of the longest training part; what lies beyond a shorter one is never read. A row that no label
    reaches has 1/K everywhere.

    Args:
        neighbours: k, the number of neighbours of each row.
        streamed: whether the features do not fit into memory; then their random projections do (1 kB per row).
        check: is called between pieces of the work, and may raise.

    Raises:
        UsageError: there are too many rows to compare all pairs, and the library for more is not installed.
    """
    replicas_of: dict[int, list[int]] = {}  # by the first row of their shard: these share a graph
    for replica, examples in enumerate(data.examples):
        replicas_of.setdefault(examples.first, []).append(replica)
    classes, labels = len(data.classes), {}
    for replicas in replicas_of.values():
        rows = data.examples[replicas[0]].training_rows
        if rows >= _MANY:
            _log.info(
                "propagating labels: finding the %d nearest neighbours of each of %s rows", neighbours, f"{rows:,}"
            )
        graphs = candidate_graphs(partial(data.training_features, replicas[0]), data, neighbours, streamed, check)
        for replica in replicas:
            places = torch.from_numpy(data.examples[replica].labelled).to(data.label.device)
            labelled, label = data.training_rows(places), one_hot(data.label[places], classes)
            name = choose(graphs, labelled, label)
            if name:
                _log.info("propagating labels along the neighbours in %s alone, which tell more of them right", name)
            labels[replica] = propagate(graphs[name], labelled, label)
    longest = max(len(soft) for soft in labels.values())
    result = next(iter(labels.values())).new_full((len(labels), longest, classes), 1 / classes)
    for replica, soft in labels.items():
        result[replica, : len(soft)] = soft
    return result


def candidate_graphs(read: Read, data: Data, neighbours: int, streamed: bool, check: Check) -> dict[str, Graph]:
    """The graph over all modalities, by the name "", and that of each modality where there are several."""
    join = projected if streamed else joined
    graphs = {"": neighbour_graph(join(read), neighbours, check)}
    if len(data.modalities) > 1:
        for m in data.modalities:
            graphs[m.name] = neighbour_graph(join(partial(_only, read, m.name)), neighbours, check)
    return graphs


def _only(read: Read, name: str) -> Iterator[Mapping[str, Tensor]]:
    return (given(block, [name]) for block in read())


def choose(graphs: Mapping[str, Graph], rows: Tensor, label: Tensor) -> str:
    """The name of the graph to use: the first one, unless another is right about clearly more held-out labels.

    Clearly more: the number of labels that only the other one gets right, less that of those that only the first gets
    right, is more than its standard error, the root of their sum (McNemar 1947).
    """
    right = {name: held_out(graph, rows, label) for name, graph in graphs.items()}
    first, best = next(iter(right)), max(right, key=lambda name: int(right[name].sum()))
    gained, lost = int((right[best] & ~right[first]).sum()), int((right[first] & ~right[best]).sum())
    return best if gained - lost > math.sqrt(gained + lost) else first


def held_out(graph: Graph, rows: Tensor, label: Tensor) -> Tensor:
    """Which labels a graph gets right from the others, `[L]`: each is held out once, a fifth of each class at a time.

    None of them if a class has one label only, because then nothing can be held out.

    Args:
        rows, label: the labelled rows `[L]` and their labels (one-hot, `[L, K]`).
    """
    number = (label.cumsum(0) * label).sum(-1).long() - 1  # of each label within its class
    folds = min(_FOLDS, int(label.sum(0).min()))
    right = torch.zeros_like(rows, dtype=torch.bool)
    for fold in range(folds if folds > 1 else 0):
        out = number % folds == fold
        soft = propagate(graph, rows[~out], label[~out])[rows[out]]
        right[out] = soft.argmax(-1) == label[out].argmax(-1)
    return right


def joined(read: Read) -> Tensor:
    """All modalities of all rows side by side, scaled so that the product of two rows is their similarity, `[N, D]`.

    The similarity of rows that have everything is their cosine. Rows that lack modalities have the mean of each
    modality's cosine, 0 where one of them lacks it: the more two rows share, the more similar they can be. The plain
    cosine of what they share would favour those that share little.

    Args:
        read: yields the rows from the first to the last, a block of each modality `[n, D_m]` at a time.
    """
    moments = _moments(read())
    return torch.cat([_similar(block, torch.cat(_scaled(block, moments), -1)) for block in read()])


def projected(read: Read) -> Tensor:
    """Random projections of `joined`'s rows, `[N, 256]`, which nearly keep the similarities between them.

    Johnson and Lindenstrauss 1984. The projection is always the same. `read` is called twice.
    """
    moments = _moments(read())
    source = torch.Generator().manual_seed(0)
    directions = [
        torch.empty(len(mean), PROJECTED).normal_(std=PROJECTED**-0.5, generator=source).to(mean.device)
        for mean in moments[0].values()
    ]
    return torch.cat(
        [
            _similar(
                block, torch.stack([x @ d for x, d in zip(_scaled(block, moments), directions, strict=True)]).sum(0)
            )
            for block in read()
        ]
    )


def _scaled(block: Mapping[str, Tensor], moments: Moments) -> list[Tensor]:
    """Each modality, centred and scaled alike; if some rows lack some, each row of each to length 1, or zeros."""
    centre, scale = moments
    values = {m: (x - centre[m]) / scale[m] for m, x in block.items()}
    if not isinstance(block, Incomplete):
        return list(values.values())
    rows = {m: present_rows(block, m) for m in block}
    parts = [normalize(x, dim=-1) / math.sqrt(len(values)) for x in values.values()]
    return [
        x if there is None else torch.where(there.unsqueeze(-1), x, 0.0)
        for x, there in zip(parts, rows.values(), strict=True)
    ]


def _similar(block: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return x if isinstance(block, Incomplete) else normalize(x, dim=-1)


def _moments(blocks: Iterable[Mapping[str, Tensor]]) -> Moments:
    """Each modality's mean `[D_m]`, and the root of the mean squared length of its centred rows, where they have it."""
    number, total, squares = dict[str, int](), dict[str, Tensor](), dict[str, Tensor]()
    for block in blocks:
        for m, x in block.items():
            rows = present_rows(block, m)  # those that lack it are zeros, so sums need not leave them out
            number[m] = number.get(m, 0) + (len(x) if rows is None else int(rows.sum()))
            total[m] = total.get(m, 0) + x.sum(0, dtype=torch.float64)
            squares[m] = squares.get(m, 0) + x.double().square().sum(0)
    mean = {m: value / max(number[m], 1) for m, value in total.items()}
    variance = {m: (squares[m] / max(number[m], 1) - mean[m].square()).clamp_min(0).sum() for m in mean}
    return (
        {m: value.float() for m, value in mean.items()},
        {m: value.sqrt().clamp_min(_TINY).float() for m, value in variance.items()},
    )


def neighbour_graph(x: Tensor, neighbours: int, check: Check = lambda: None) -> Graph:
    """S of rows `[N, D]` (of `joined` or `projected`), each connected to the most similar ones.

    Raises:
        UsageError: as in `propagated_labels`.
    """
    cosines, rows = nearest(x, min(neighbours, len(x) - 1), check)
    weights = cosines.clamp_min(0) ** POWER
    degree = weights.sum(-1).index_add_(0, rows.flatten(), weights.flatten())
    scale = degree.clamp_min(_TINY).rsqrt()
    return Graph(rows, scale.unsqueeze(-1) * weights * scale[rows])


def nearest(x: Tensor, k: int, check: Check = lambda: None) -> tuple[Tensor, Tensor]:
    """The k most similar other rows of each row of x, `[N, D]`: their similarities and numbers, `[N, k]`.

    Raises:
        UsageError: as in `propagated_labels`.
    """
    if len(x) > EXACT_ROWS[x.device.type]:
        return _nearly_nearest(x, k)
    step = max(1, _SIMILARITIES // len(x))
    found = []
    for start in range(0, len(x), step):
        check()
        cosines = x[start : start + step] @ x.T
        cosines.diagonal(start).fill_(-2)  # below any cosine: no row is its own neighbour
        found.append(cosines.topk(k))
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])


def _nearly_nearest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`nearest` by an index that finds nearly all of them in far less time than comparing all pairs takes."""
    try:
        import faiss
    except ImportError:
        raise UsageError(
            f"{len(x):,} rows are too many to find each row's nearest neighbours by comparing all pairs",
            "pip install 'mmssl[neighbours]', or leave the propagated labels out: --set propagation=0",
        ) from None
    index = faiss.IndexHNSWFlat(x.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    rows = x.cpu().numpy()
    index.add(rows)
    cosines, numbers = (torch.from_numpy(found).to(x.device) for found in index.search(rows, k + 1))
    itself = numbers == torch.arange(len(x), device=x.device).unsqueeze(-1)
    itself[:, -1] |= ~itself.any(-1)  # duplicates may have taken a row's own place
    return cosines[~itself].view(-1, k), numbers[~itself].view(-1, k).clamp_min(0)


def propagate(graph: Graph, rows: Tensor, label: Tensor) -> Tensor:
    """P `[N, K]`, from the labels (one-hot, `[L, K]`) of the rows `[L]`, which keep them."""
    size = len(graph.neighbours)
    labels = label.new_zeros(size, label.shape[-1])
    labels[rows] = label / label.sum(0).clamp_min(1)
    spread = labels
    for _ in range(ITERATIONS):
        spread = ALPHA * (graph @ spread) + (1 - ALPHA) * labels
    spread = spread / spread.sum(0).clamp_min(_TINY)
    reached = spread.sum(-1, keepdim=True)
    soft = torch.where(reached > 0, spread / reached.clamp_min(_TINY), 1 / label.shape[-1])
    soft[rows] = label
    return soft
