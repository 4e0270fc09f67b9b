"""Measures of predictions against labels: accuracy, likelihood, calibration."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import TrainingError

BINS = 15
COMPLETION_TITLES = {
    "none": "all given",
    "zeros": "zeros",
    "iterative": "iterative sampling",
    "encoders": "encoders",
    "views": "own classifiers",
}


@dataclass(frozen=True)
class Score:
    """One replica's measures on its test set, given some of the modalities.

    Attributes:
        given: the modalities, `x+w`.
        completion: what stands in for the others: `zeros`, `iterative`, `encoders`; `none` where none is missing;
            `views` where the given ones have classifiers of their own.
        accuracy: share of examples whose most probable label is right.
        nll: mean of -log q(y|given) of the right label, in nats.
        ece: expected calibration error of the most probable label, in [0, 1].
        examples: how many.
    """

    given: str
    completion: str
    accuracy: float
    nll: float
    ece: float
    examples: int


@dataclass(frozen=True)
class Evaluation:
    """One replica's scores, and its ELBO per test example (the unlabelled bound, one sample), in nats.

    There is no ELBO (None) where no bound was trained, or none was asked for.
    """

    scores: tuple[Score, ...]
    elbo: float | None


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, the single ones first, in the modalities' order."""
    sizes = range(1, len(modalities) + 1)
    return [subset for size in sizes for subset in itertools.combinations(modalities, size)]


def score(given: str, completion: str, log_q: NDArray[np.float32], label: NDArray[np.int64]) -> Score:
    """Measures of predictions `[N, K]` (log-probabilities) against labels `[N]`.

    Raises:
        TrainingError: a prediction is no number.
    """
    if np.isnan(log_q).any():
        raise TrainingError(f"the model's predictions from {given} are no numbers", "a smaller --lr often helps")
    right = log_q.argmax(-1) == label
    nll = -log_q[np.arange(len(label)), label].astype(np.float64).mean()
    confidence = np.exp(log_q.max(-1).astype(np.float64))
    return Score(given, completion, float(right.mean()), float(nll), calibration_error(confidence, right), len(label))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of (share of examples) * |accuracy - mean confidence|."""
    which = confidence_bin(confidence, bins)
    gap = np.bincount(which, right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(right))


def confidence_bin(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence: equal ones over (0, 1], closed on the right, so that 1 lies in the last."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
