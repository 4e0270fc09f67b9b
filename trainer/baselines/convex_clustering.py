"""Convex clustering with exemplars (Lashkari and Golland 2007), and a choice of points from all clusters."""

import numpy as np
from numpy.typing import NDArray

STEPS = 200  # of EM
SMALL = 1e-3  # fraction of the largest weight below which an exemplar does not form a cluster


def convex_clusters(points: NDArray[np.float64], granularity: float = 1.0) -> NDArray[np.int64]:
    """The cluster of each point, given as the index of its exemplar.

    Every point is a candidate exemplar in a mixture of equal kernels, and the weights q of the mixture maximise

        sum_i log sum_j q_j exp(-beta d(i, j)),  d the squared Euclidean distance,

    which is concave in q, so EM from equal weights climbs to the global maximum. beta is the authors'
    beta_0 = n^2 log n / sum_ij d(i, j), times `granularity`. The number of clusters follows from the data.

    Args:
        points: the points, `[N, D]`.
        granularity: a factor of beta; more gives more clusters.
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
    """The weights q that maximise sum_i log (kernel q)_i, found by EM from equal weights."""
    q = np.full(len(kernel), 1 / len(kernel))
    for _ in range(steps):
        q *= (kernel / (kernel @ q)[:, None]).mean(0)
    return q


def diverse(clusters: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The indices of `count` points (or all, if fewer): the first of each cluster, then the second of each, ...

    Points are given best first; clusters are ordered by their best point.
    """
    rank = np.zeros(len(clusters), np.int64)  # of a point within its cluster
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        rank[members] = np.arange(len(members))
    return np.argsort(rank, kind="stable")[:count].astype(np.int64)
