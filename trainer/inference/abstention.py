"""When a prediction is not sure enough to be given: a threshold on its probability, for each subset of modalities."""

import numpy as np
from numpy.typing import NDArray

from trainer.inference.card import AbstentionCard

# Dense near 1, where the probabilities of a good classifier lie.
THRESHOLDS = (
    *(round(0.05 * k, 2) for k in range(10)), *(round(0.5 + 0.02 * k, 2) for k in range(20)), 0.9, 0.91, 0.92, 0.93,
    0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9999, 1.0,
)  # fmt: skip


def threshold_for(probability: NDArray[np.float64], right: NDArray[np.bool_], target: float) -> AbstentionCard:
    """The threshold that answers most rows among those whose answers reach the target accuracy.

    It lies halfway between the least probability that is answered and the next one below, so that rounding decides
    nothing.

    Args:
        probability: of the most probable class, `[N]`, N > 0.
        right: whether that class is the true one, `[N]`.
        target: the least accuracy.
    """
    order = np.argsort(-probability, kind="stable")
    ordered, hits = probability[order], np.cumsum(right[order])
    accuracy = hits / np.arange(1, len(ordered) + 1)
    last_of_ties = np.append(ordered[1:] < ordered[:-1], True)
    reached = np.flatnonzero((accuracy >= target) & last_of_ties)
    if not reached.size:
        return AbstentionCard(threshold=None, coverage=0.0)
    place = int(reached[-1])
    below = ordered[place + 1] if place + 1 < len(ordered) else 0.0
    return AbstentionCard(
        threshold=float((ordered[place] + below) / 2),
        coverage=(place + 1) / len(ordered),
        accuracy=float(accuracy[place]),
    )


def at_threshold(probability: NDArray[np.float64], right: NDArray[np.bool_], threshold: float) -> AbstentionCard:
    """What a given threshold gives on test rows, `[N]` each; N may be 0."""
    answered = probability >= threshold
    count = int(answered.sum())
    return AbstentionCard(
        threshold=threshold,
        coverage=count / len(answered) if len(answered) else None,
        accuracy=float(right[answered].mean()) if count else None,
    )


def curve(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[AbstentionCard, ...]:
    """What each of `THRESHOLDS` gives on test rows, `[N]` each, N > 0."""
    return tuple(at_threshold(probability, right, threshold) for threshold in THRESHOLDS)
