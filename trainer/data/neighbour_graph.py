"""The graph along which labels propagate: each row and the rows that are most similar to it.

    S = D^(-1/2) W D^(-1/2)             W [N, N] symmetric, D its row sums

W_ij is the similarity (`trainer.data.similarity`) between i and each of its nearest neighbours j, to a high power, so
that the nearest of them count most. It counts for less where i is not among the nearest of j: rows between clusters
have neighbours in them, but few rows have these as neighbours.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.runtime.errors import UsageError

POWER, ONE_SIDED = 8, 0.25  # of a similarity; the share that counts where only one row is near the other
EXACT_ROWS = {"cpu": 200_000, "cuda": 2_000_000}  # beyond these, comparing all pairs takes hours
_SIMILARITIES = 2**26  # cosines in memory at a time: 256 MiB
_TINY = 1e-30
Check = Callable[[], None]


def neighbour_graph(x: Tensor, neighbours: int, check: Check = lambda: None) -> Tensor:
    """S of rows `[N, D]` (`comparable_rows`), each connected to the most similar ones: `[N, N]`, sparse.

    Raises:
        UsageError: there are too many rows to compare all pairs, and the library for more is not installed.
    """
    similarity, rows = nearest(x, min(neighbours, len(x) - 1), check)
    here = torch.arange(len(x), device=x.device).unsqueeze(-1)
    mutual = torch.stack([(rows[others] == here).any(-1) for others in rows.unbind(-1)], -1)  # [N, k]
    weights = similarity.clamp_min(0) ** POWER * torch.where(mutual, 1.0, ONE_SIDED)
    degree = weights.sum(-1).index_add_(0, rows.flatten(), weights.flatten())
    scale = degree.clamp_min(_TINY).rsqrt()
    edges = torch.stack([here.expand_as(rows).flatten(), rows.flatten()])
    values = (scale.unsqueeze(-1) * weights * scale[rows]).flatten()
    both_ways = torch.sparse_coo_tensor(
        torch.cat([edges, edges.flip(0)], -1), values.repeat(2), (len(x), len(x)), check_invariants=False
    ).coalesce()
    return _compressed(both_ways)


def nearest(x: Tensor, k: int, check: Check = lambda: None) -> tuple[Tensor, Tensor]:
    """The k most similar other rows of each row of x, `[N, D]`: their similarities and numbers, `[N, k]`.

    Raises:
        UsageError: as in `neighbour_graph`.
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


def mean_graph(graphs: Sequence[Tensor], weights: Sequence[float] = ()) -> Tensor:
    """The mean of several S, `[N, N]`, sparse; weights add up to 1, and without them all graphs count alike."""
    shares = weights or [1 / len(graphs)] * len(graphs)
    parts = [graph.to_sparse_coo() * share for graph, share in zip(graphs, shares, strict=True) if share]
    return _compressed(sum(parts[1:], start=parts[0]).coalesce())


def _compressed(graph: Tensor) -> Tensor:
    """The same by rows (CSR): its product with a matrix takes a seventh of the time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return graph.to_sparse_csr()
