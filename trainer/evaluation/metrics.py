"""Metrics of predictions against labels: accuracy, likelihood, calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import TrainingError

BINS = 15  # of the calibration error
COMPLETION_TITLES = {
    "none": "all given",
    "zeros": "zeros",
    "iterative": "iterative sampling",
    "encoders": "encoders",
    "views": "own classifiers",
}


@dataclass(frozen=True)
class Score:
    """One replica's metrics on its test set, given some of the modalities.

    Attributes:
        given: the modalities the model sees, such as `x+w`.
        completion: how the missing ones are completed: `zeros`, `iterative`, `encoders`; `none` if none is missing;
            `views` if the given modalities have classifiers of their own.
        accuracy: the fraction of examples whose most probable label is correct.
        nll: the mean of -log q(y|given) of the correct label, in nats.
        ece: the expected calibration error of the most probable label, in [0, 1].
        examples: the number of test examples.
    """

    given: str
    completion: str
    accuracy: float
    nll: float
    ece: float
    examples: int


@dataclass(frozen=True)
class Evaluation:
    """One replica's scores, and its mean ELBO per test example (the unlabelled bound, one sample), in nats.

    The ELBO is None if no bound was trained or none was asked for.
    """

    scores: tuple[Score, ...]
    elbo: float | None


def score(given: str, completion: str, log_q: NDArray[np.float32], label: NDArray[np.int64]) -> Score:
    """The metrics of predictions `[N, K]` (log-probabilities) against labels `[N]`.

    Raises:
        TrainingError: a prediction is NaN.
    """
    if np.isnan(log_q).any():
        raise TrainingError(f"the model's predictions from {given} are not numbers", "a smaller --lr often helps")
    correct = log_q.argmax(-1) == label
    nll = -log_q[np.arange(len(label)), label].astype(np.float64).mean()
    confidence = np.exp(log_q.max(-1).astype(np.float64))
    ece = calibration_error(confidence, correct)
    return Score(given, completion, float(correct.mean()), float(nll), ece, len(label))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error: the sum over bins of (fraction of examples) * |accuracy - mean confidence|."""
    bin_ = confidence_bin(confidence, bins)
    gap = np.bincount(bin_, right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(right))


def confidence_bin(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence; bins divide (0, 1] equally and are closed on the right, so 1 is in the last."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
