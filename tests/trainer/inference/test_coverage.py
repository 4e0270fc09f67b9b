"""Covering rows: kinds without a label first, no second row of a kind, no outliers, groups and samples."""

import numpy as np
import pytest

from trainer.inference import coverage
from trainer.inference.coverage import choose_rows


def kinds(rows: int = 30) -> np.ndarray:
    """Four tight clusters of equally many rows, and one outlier at the end."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    return np.concatenate([*(centre + 0.1 * rng.standard_normal((rows, 2)) for centre in centres), [[50, 50]]])


def chosen(count: int, labelled: list[int], **options: object) -> list[int]:
    x = kinds()
    eligible = np.ones(len(x), np.bool_)
    eligible[labelled] = False
    weights = options.pop("weights", np.ones(len(x)))
    found = choose_rows(x, weights, np.array(labelled, np.int64), eligible, count, **options)  # type: ignore[arg-type]
    return [choice.row for choice in found]


def test_each_kind_is_asked_about_once_before_any_is_asked_about_again() -> None:
    assert sorted(row // 30 for row in chosen(4, [])) == [0, 1, 2, 3]
    assert sorted(row // 30 for row in chosen(2, [0, 40])) == [2, 3]


def test_weights_decide_among_kinds() -> None:
    weights = np.ones(121)
    weights[60:90] = 5
    assert chosen(1, [], weights=weights)[0] // 30 == 2


def test_a_group_has_its_limit() -> None:
    groups = np.array(["a"] * 60 + [""] * 61)
    rows = chosen(6, [], groups=groups, per_group=1)
    assert sum(row < 60 for row in rows) == 1
    assert len(set(rows)) == 6


def test_distances_are_to_what_is_labelled_or_chosen_before() -> None:
    x = np.array([[0.0], [1.0], [5.0], [5.1]])
    first, second = choose_rows(x, np.ones(4), np.array([0]), np.array([False, True, True, True]), 2)
    assert first.row in (2, 3)
    assert first.distance == pytest.approx(float(x[first.row, 0]))
    nothing = choose_rows(x, np.ones(4), np.array([], np.int64), np.ones(4, np.bool_), 1)
    assert nothing[0].distance is None
    assert second.distance is not None


def test_there_are_no_more_rows_than_there_are() -> None:
    assert len(chosen(500, [0])) == 120


def test_large_data_is_sampled_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "MOST_ROWS", 60)
    x = kinds()[:-1]  # h is a mean, which one far outlier among few rows makes too large
    twice = [choose_rows(x, np.ones(120), np.array([], np.int64), np.ones(120, np.bool_), 4, seed=3) for _ in range(2)]
    assert twice[0] == twice[1]
    assert sorted(choice.row // 30 for choice in twice[0]) == [0, 1, 2, 3]
