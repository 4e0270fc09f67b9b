"""Uncertainty of means over replicas, and of differences between two settings that share their replicas.

Intervals are Student's t, two-sided, at 95 %: mean ± t(0.975, n - 1) s / sqrt(n), with s the sample standard deviation
(n - 1) and n the number of replicas. Splits of one data set share training data, so replicas that are splits are not
independent, and their interval is approximate.
"""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scipy import stats

Replica = TypeVar("Replica", bound=Hashable)

LEVEL = 0.95
PLUS_MINUS = "mean ± half-width of the 95 % confidence interval (Student's t)"
SPLITS_OVERLAP = "splits share training data, so the interval is approximate"


@dataclass(frozen=True)
class PairedDifference:
    """The mean of ours - theirs over shared replicas.

    Attributes:
        mean: in the unit of the values.
        standard_error: of the mean; None for one pair.
        half_width: half the width of the 95 % confidence interval of the mean; None for one pair.
        pairs: the number of shared replicas.
    """

    mean: float
    standard_error: float | None
    half_width: float | None
    pairs: int


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half the width of its 95 % confidence interval in the same unit; None for a single value.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there are no values to average")
    error = standard_error(values)
    return statistics.fmean(values), None if error is None else _quantile(len(values)) * error


def paired_difference(ours: Mapping[Replica, float], theirs: Mapping[Replica, float]) -> PairedDifference | None:
    """The mean of ours - theirs over the replicas that both have; None if they share none.

    Args:
        ours, theirs: a value per replica, by what tells replicas apart, such as seed and split.
    """
    differences = [value - theirs[replica] for replica, value in ours.items() if replica in theirs]
    if not differences:
        return None
    mean, half_width = mean_and_half_width(differences)
    return PairedDifference(mean, standard_error(differences), half_width, len(differences))


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None for a single value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _quantile(count: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1))
