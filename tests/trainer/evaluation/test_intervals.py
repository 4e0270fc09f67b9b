"""Confidence intervals against SciPy's own, and in closed form."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainer.evaluation.intervals import mean_and_half_width, paired_difference

values = st.lists(st.floats(0, 100), min_size=2, max_size=12)


@given(values)
def test_the_interval_is_scipys(sample: list[float]) -> None:
    mean, half_width = mean_and_half_width(sample)
    assert half_width is not None
    error = stats.sem(sample)
    if error < 1e-6:  # SciPy's interval is not a number for equal values
        assert half_width == pytest.approx(0, abs=1e-4)
    else:
        low, high = stats.t.interval(0.95, len(sample) - 1, loc=mean, scale=error)
        assert (mean - half_width, mean + half_width) == pytest.approx((low, high))


def test_two_values_in_closed_form() -> None:
    # Student's t with one degree of freedom is Cauchy's distribution: its quantile is tan(pi (p - 1/2))
    mean, half_width = mean_and_half_width([90.0, 92.0])
    assert mean == 91
    assert half_width == pytest.approx(math.tan(math.pi * 0.475) * 1.0)  # s / sqrt(2) = 1


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert mean_and_half_width([3.0]) == (3.0, None)
    with pytest.raises(ValueError, match="no values"):
        mean_and_half_width([])


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=12))
def test_a_paired_difference_is_scipys_paired_test(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = ({seed: pair[k] for seed, pair in enumerate(pairs)} for k in (0, 1))
    found = paired_difference(ours, theirs)
    assert found is not None
    assert found.standard_error is not None
    assert found.half_width is not None
    assert found.pairs == len(pairs)
    if found.standard_error < 1e-6:
        return  # SciPy warns of equal differences
    expected = stats.ttest_rel(list(ours.values()), list(theirs.values()))
    assert found.mean / found.standard_error == pytest.approx(expected.statistic)
    interval = expected.confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (interval.low, interval.high), abs=1e-9
    )


def test_only_shared_replicas_are_paired() -> None:
    ours, theirs = {(0, None): 5.0, (1, None): 7.0, (2, None): 100.0}, {(1, None): 4.0, (0, None): 4.0, (9, None): 0.0}
    found = paired_difference(ours, theirs)
    assert found is not None
    assert (found.mean, found.pairs) == (2.0, 2)
    assert found.standard_error == pytest.approx(1.0)  # differences 1 and 3
    alone = paired_difference({0: 5.0}, {0: 4.0})
    assert alone is not None
    assert (alone.mean, alone.standard_error, alone.half_width, alone.pairs) == (1.0, None, None, 1)
    assert paired_difference({0: 5.0}, {1: 4.0}) is None


def test_pairing_removes_what_replicas_have_in_common() -> None:
    hard = {seed: 10.0 * seed for seed in range(5)}
    easier = {seed: value + 1 + 0.01 * (seed % 2) for seed, value in hard.items()}
    found = paired_difference(easier, hard)
    assert found is not None
    assert found.half_width is not None
    _, unpaired = mean_and_half_width(list(hard.values()))
    assert unpaired is not None
    assert found.half_width < 0.01 < unpaired
