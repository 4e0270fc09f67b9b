"""Convex clustering against its optimality conditions and cases known by hand; the choice from every cluster."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.baselines.convex_clustering import convex_clusters, diverse, exemplar_weights


@pytest.mark.parametrize("granularity", [0.3, 1.0, 5.0])
def test_the_weights_are_the_optimum(granularity: float) -> None:
    """Of a concave function on the simplex: no exemplar's gradient is above 1, that of each one in use is 1."""
    points = np.random.default_rng(0).standard_normal((30, 3))
    distance = np.square(points[:, None] - points).sum(-1)
    kernel = np.exp(-granularity * distance)
    q = exemplar_weights(kernel, steps=5_000)
    gradient = (kernel / (kernel @ q)[:, None]).mean(0)
    assert q.sum() == pytest.approx(1)
    assert gradient.max() < 1.001
    assert gradient[q > 0.01] == pytest.approx(1, abs=1e-3)
    value = np.log(kernel @ q).sum()
    for other in np.random.default_rng(1).dirichlet(np.ones(30), 200):
        assert np.log(kernel @ other).sum() <= value + 1e-9


def test_groups_far_apart_are_clusters() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(30) % 3
    points = 10 * np.eye(3)[group] + 0.1 * rng.standard_normal((30, 3))
    clusters = convex_clusters(points)
    assert len(np.unique(clusters)) == 3
    for k in range(3):
        assert len(np.unique(clusters[group == k])) == 1
        assert group[clusters[group == k][0]] == k  # its exemplar is one of its own


def test_more_granularity_gives_more_clusters() -> None:
    points = np.random.default_rng(0).standard_normal((40, 2))
    counts = [len(np.unique(convex_clusters(points, granularity))) for granularity in (0.1, 1, 100)]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.ones((1, 2)), np.ones((6, 2))])
def test_points_that_cannot_be_told_apart_are_one_cluster(points: np.ndarray) -> None:
    assert convex_clusters(points).tolist() == [0] * len(points)


def test_the_choice_goes_round_the_clusters_by_hand() -> None:
    clusters = np.array([7, 7, 7, 2, 7, 2, 9])
    assert diverse(clusters, 7).tolist() == [0, 3, 6, 1, 5, 2, 4]
    assert diverse(clusters, 2).tolist() == [0, 3]
    assert diverse(clusters, 99).tolist() == [0, 3, 6, 1, 5, 2, 4]


@given(st.lists(st.integers(0, 4), max_size=20), st.integers(0, 25))
def test_no_cluster_is_left_out_while_another_gives_more(clusters: list[int], count: int) -> None:
    chosen = diverse(np.array(clusters, np.int64), count)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(clusters))
    taken = {k: [i for i in chosen if clusters[i] == k] for k in set(clusters)}
    for k, rows in taken.items():
        members = [i for i, cluster in enumerate(clusters) if cluster == k]
        assert sorted(rows) == members[: len(rows)]  # the best of it
        if len(rows) < len(members):
            assert all(len(other) <= len(rows) + 1 for other in taken.values())
