"""A round of co-training by hand: who teaches what, who is believed, and what views say together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from trainer.baselines.cotraining import CoTrained, LogQ, PseudoLabels, exchange, merge
from trainer.data.selection import Rows
from trainer.settings.run_settings import Settings


@dataclass
class Says:
    """A view whose probabilities, by row, are given."""

    probabilities: Mapping[int, tuple[float, ...]]

    def log_q(self, rows: Rows) -> LogQ:
        return np.log(np.array([self.probabilities[int(row)] for row in rows], np.float32))


class TheSurest:
    """A system as far as an exchange needs one."""

    def choose(self, _view: Says, rows: Rows, count: int) -> Rows:
        return rows[:count]


def taught(**rows: tuple[float, int]) -> PseudoLabels:
    """`r5=(0.9, 1)`: row 5 was called class 1, by a teacher 0.9 sure."""
    return PseudoLabels(
        np.array([int(name[1:]) for name in rows], np.int64),
        np.array([label for _, label in rows.values()], np.int64),
        np.array([sure for sure, _ in rows.values()]),
    )


def exchanged(
    views: dict[str, Says], earlier: dict[str, PseudoLabels] | None = None, rows: int = 4, **changes: int
) -> dict[str, dict[int, tuple[float, int]]]:
    """By pupil, each row that it is newly taught: how sure its teacher is, and of which class."""
    settings = Settings.model_validate(
        {"model": "ct-svm", "data": "", "labels": 2, "epochs": 1, "batch_size": 2, "learning_rate": 1, "networks": {}}
        | {"cotraining": {"k_best": 1} | changes}
    )
    nothing = {name: PseudoLabels.nothing() for name in views}
    new = exchange(TheSurest(), views, np.arange(rows), nothing | (earlier or {}), settings, 0)  # type: ignore[arg-type]
    return {
        pupil: dict(
            zip(
                lesson.rows.tolist(),
                zip(lesson.confidence.round(4).tolist(), lesson.labels.tolist(), strict=True),
                strict=True,
            )
        )
        for pupil, lesson in new.items()
    }


A = Says({0: (0.9, 0.1), 1: (0.6, 0.4), 2: (0.2, 0.8), 3: (0.3, 0.7)})
B = Says({0: (0.1, 0.9), 1: (0.55, 0.45), 2: (0.4, 0.6), 3: (0.45, 0.55)})


def test_each_view_teaches_the_other_what_it_is_surest_of_in_each_class() -> None:
    assert exchanged({"a": A, "b": B}) == {"a": {0: (0.9, 1), 1: (0.55, 0)}, "b": {0: (0.9, 0), 2: (0.8, 1)}}
    assert exchanged({"a": A, "b": B}, k_best=9)["b"] == {0: (0.9, 0), 1: (0.6, 0), 2: (0.8, 1), 3: (0.7, 1)}


def test_what_a_view_was_taught_it_neither_teaches_nor_learns_again() -> None:
    earlier = {"a": taught(r0=(0.99, 0), r2=(0.7, 1))}
    assert exchanged({"a": A, "b": B}, earlier) == {"a": {1: (0.55, 0), 3: (0.55, 1)}, "b": {1: (0.6, 0), 3: (0.7, 1)}}
    all_taught = {"a": taught(r0=(0.5, 0), r1=(0.5, 0), r2=(0.5, 0), r3=(0.5, 0))}
    assert exchanged({"a": A, "b": B}, all_taught) == {"a": {}, "b": {}}
    assert exchanged({"a": A, "b": B}, rows=0) == {"a": {}, "b": {}}


def test_of_three_views_the_surest_teacher_is_believed() -> None:
    c = Says({0: (0.98, 0.02), 1: (0.5, 0.5), 2: (0.3, 0.7), 3: (0.4, 0.6)})
    lessons = exchanged({"a": A, "b": B, "c": c})
    assert lessons["a"] == {0: (0.98, 0), 1: (0.55, 0), 2: (0.7, 1)}  # b calls row 0 class 1, and is 0.9 sure
    assert lessons["b"] == {0: (0.98, 0), 2: (0.8, 1)}
    assert lessons["c"] == {0: (0.9, 0), 1: (0.55, 0), 2: (0.8, 1)}  # a and b are equally sure of row 0: the first
    # What a and b were both taught, c alone still has to learn, and nobody who knows it by himself is left but c.
    both = taught(r0=(0.9, 0))
    assert all(0 not in rows for rows in exchanged({"a": A, "b": B, "c": c}, {"a": both, "b": both}).values())


def test_a_pool_is_drawn_anew_each_round_from_what_is_left() -> None:
    rows = 60
    sure = Says(dict.fromkeys(range(rows), (0.9, 0.1)))
    lessons = exchanged({"a": sure, "b": sure}, rows=rows, pool=10, k_best=60)
    assert len(lessons["a"]) == len(lessons["b"]) == 10
    assert lessons["a"].keys() != set(range(10))
    left = {"a": taught(**{f"r{row}": (0.9, 0) for row in range(50)})}
    assert exchanged({"a": sure, "b": sure}, left, rows, pool=10, k_best=60)["a"].keys() == set(range(50, 60))


def test_merging_keeps_the_surest_and_the_order_of_rows() -> None:
    merged = merge([taught(r7=(0.5, 0), r2=(0.9, 1)), taught(r7=(0.6, 1), r2=(0.9, 0))])
    assert (merged.rows.tolist(), merged.labels.tolist(), merged.confidence.tolist()) == ([2, 7], [1, 1], [0.9, 0.6])


def test_modalities_given_together_are_the_product_of_their_views() -> None:
    trained = CoTrained({"a": A, "b": B}, None)
    joint = np.exp(trained.log_q(("a", "b"), np.array([0, 2])))
    expected = np.array([[0.9 * 0.1, 0.1 * 0.9], [0.2 * 0.4, 0.8 * 0.6]])
    assert joint == pytest.approx(expected / expected.sum(1, keepdims=True), rel=1e-5)
    assert np.exp(trained.log_q(("b",), np.array([2]))) == pytest.approx(np.array([[0.4, 0.6]]))
    fused = CoTrained({"a": A, "b": A}, B)
    assert np.array_equal(fused.log_q(("a", "b"), np.arange(4)), B.log_q(np.arange(4)))
