"""Convex clustering with exemplars (Lashkari and Golland 2007), and a choice that takes from every cluster."""

import numpy as np
from numpy.typing import NDArray

STEPS = 200
SMALL = 1e-3  # a share of the largest weight below which an exemplar stands for no cluster


def convex_clusters(points: NDArray[np.float64], granularity: float = 1.0) -> NDArray[np.int64]:
    """The cluster of each point, as its exemplar's index.

    Every point is a candidate exemplar of a mixture of equal kernels; the mixture's weights q maximise

        sum_i log sum_j q_j exp(-beta d(i, j)),  d the squared Euclidean distance,

    which is concave in q, so that EM from equal weights climbs to the one maximum. beta is its authors'
    beta_0 = n^2 log n / sum_ij d(i, j), times `granularity`. How many clusters there are comes out of it.

    Args:
        points: `[N, D]`.
    """
    count = len(points)
    squares = np.square(points).sum(-1)
    distance = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0)
    np.fill_diagonal(distance, 0)
    if count < 2 or distance.sum() == 0:
        return np.zeros(count, np.int64)
    beta = granularity * count**2 * np.log(count) / distance.sum()
    kernel = np.exp(-beta * distance)
    q = exemplar_weights(kernel)
    q[q < SMALL * q.max()] = 0
    with np.errstate(divide="ignore"):
        exemplar: NDArray[np.int64] = (np.log(q) - beta * distance).argmax(1)
    return exemplar


def exemplar_weights(kernel: NDArray[np.float64], steps: int = STEPS) -> NDArray[np.float64]:
    """The weights q that maximise sum_i log (kernel q)_i, by EM from equal ones."""
    q = np.full(len(kernel), 1 / len(kernel))
    for _ in range(steps):
        q *= (kernel / (kernel @ q)[:, None]).mean(0)
    return q


def diverse(clusters: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Indices of `count` points (or all, if fewer): the first of every cluster, then the second of every one, ...

    Points come best first, and so do the clusters, by their best point.
    """
    turn = np.zeros(len(clusters), np.int64)  # which one of its cluster a point is
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        turn[members] = np.arange(len(members))
    return np.argsort(turn, kind="stable")[:count].astype(np.int64)
