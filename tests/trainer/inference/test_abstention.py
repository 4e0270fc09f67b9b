"""Thresholds: the most answers that reach the target, found by trying every threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.inference.abstention import at_threshold, threshold_for

ROWS = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=30)


@given(rows=ROWS, target=st.sampled_from([0.0, 0.5, 0.8, 0.99, 1.0]))
def test_the_threshold_answers_most_among_those_that_reach_the_target(
    rows: list[tuple[int, bool]], target: float
) -> None:
    probability = np.array([p / 10 for p, _ in rows])
    right = np.array([hit for _, hit in rows])
    tried = [probability >= t for t in np.unique(probability)]
    best = max((int(answered.sum()) for answered in tried if right[answered].mean() >= target), default=0)
    found = threshold_for(probability, right, target)
    if best == 0:
        assert (found.threshold, found.coverage, found.accuracy) == (None, 0.0, None)
        return
    assert found.threshold is not None
    assert int((probability >= found.threshold).sum()) == best
    assert found.coverage == pytest.approx(best / len(rows))
    assert at_threshold(probability, right, found.threshold) == found
    assert found.accuracy is not None
    assert found.accuracy >= target


def test_rounding_decides_nothing() -> None:
    probability, right = np.array([0.9, 0.8, 0.4]), np.array([True, True, False])
    found = threshold_for(probability, right, 0.99)
    assert found.threshold == pytest.approx(0.6)
    assert threshold_for(probability, np.array([True, True, True]), 0.99).threshold == pytest.approx(0.2)


def test_a_given_threshold_may_answer_nothing() -> None:
    card = at_threshold(np.array([0.5]), np.array([True]), 0.9)
    assert (card.threshold, card.coverage, card.accuracy) == (0.9, 0.0, None)
    none = at_threshold(np.empty(0), np.empty(0, np.bool_), 0.9)
    assert (none.threshold, none.coverage, none.accuracy) == (0.9, None, None)
