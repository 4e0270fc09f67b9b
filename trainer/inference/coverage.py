"""Chooses rows that cover what is not covered yet: weighted facility location, by the greedy algorithm.

With s_ij the similarity of rows i and j, w_j the weight of row j, and c_j the greatest similarity of j to any row that
is labelled or chosen, the next row is the one that gains most:

    i* = argmax_i  sum_j w_j max(0, s_ij - c_j)         s_ij = exp(-|v_i - v_j|^2 / 2 h)

So a row is worth asking about if many weighty rows lie near it and none of them near a label: an outlier covers itself
alone, and a second row of the same kind gains nothing. The greedy choice reaches 1 - 1/e of the best at least
(Nemhauser et al. 1978). With equal weights and no labels it is k-medoids' objective with similarities.
h is the mean squared distance at which a row has a hundredth of all rows nearer to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.nn.rng import seed_for

MOST_ROWS = 4000  # that are compared with each other; of more, a sample
_NEAR = 0.01  # the share of rows that h takes as near
_TINY = 1e-12
_BLOCK = 4000

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """A chosen row, and how far it was from all rows labelled or chosen before it; None if there were none."""

    row: int
    distance: float | None


def choose_rows(
    vectors: NDArray[np.floating],
    weights: Floats,
    labelled: Rows,
    eligible: NDArray[np.bool_],
    count: int,
    *,
    groups: NDArray[np.str_] | None = None,
    per_group: int | None = None,
    seed: int = 0,
) -> list[Choice]:
    """Chooses up to `count` of the eligible rows, the best one first.

    Args:
        vectors: where the rows lie, `[N, d]`.
        weights: w, `[N]`, not negative.
        labelled: the rows that have a label.
        eligible: bool `[N]`, the rows that may be chosen.
        groups: str `[N]`; an empty text is a row of no group.
        per_group: the most rows chosen from one group; None for any number.
        seed: of the samples of more than `MOST_ROWS` rows.
    """
    rng = np.random.default_rng(seed_for(seed, "suggest"))
    x = vectors.astype(np.float64)
    targets = _sample(np.arange(len(x)), None, rng)
    allowed = np.flatnonzero(eligible)
    candidates = _sample(allowed, weights[allowed] + _TINY, rng)
    h = _near(x[targets])
    similar = np.exp(-_squared(x[candidates], x[targets]) / (2 * h))  # [C, T]
    covered = np.zeros(len(targets))
    apart = np.full(len(candidates), np.inf)  # squared distances to what is labelled or chosen
    for start in range(0, len(labelled), _BLOCK):
        some = x[labelled[start : start + _BLOCK]]
        covered = np.maximum(covered, np.exp(-_squared(some, x[targets]).min(0) / (2 * h)))
        apart = np.minimum(apart, _squared(x[candidates], some).min(1))
    free = np.ones(len(candidates), np.bool_)
    w, chosen = weights[targets], list[Choice]()
    taken: dict[str, int] = {}
    while len(chosen) < count and free.any():
        gain = np.where(free, np.maximum(similar - covered, 0) @ w, -1.0)
        best = int(gain.argmax())
        row = int(candidates[best])
        distance = float(np.sqrt(apart[best])) if np.isfinite(apart[best]) else None
        chosen.append(Choice(row, distance))
        free[best] = False
        covered = np.maximum(covered, similar[best])
        apart = np.minimum(apart, _squared(x[candidates], x[[row]])[:, 0])
        if groups is not None and per_group is not None and (name := str(groups[row])):
            taken[name] = taken.get(name, 0) + 1
            if taken[name] >= per_group:
                free &= groups[candidates] != name
    return chosen


def _sample(rows: Rows, weights: Floats | None, rng: np.random.Generator) -> Rows:
    if len(rows) <= MOST_ROWS:
        return rows
    p = None if weights is None else weights / weights.sum()
    return np.sort(rng.choice(rows, MOST_ROWS, replace=False, p=p))


def _near(x: Floats) -> float:
    """h of rows `[T, d]`."""
    place = min(max(1, round(_NEAR * len(x))), len(x) - 1)
    distances = [
        np.partition(_squared(x[s : s + _BLOCK], x), place, axis=1)[:, place] for s in range(0, len(x), _BLOCK)
    ]
    return max(float(np.concatenate(distances).mean()), _TINY)


def _squared(a: Floats, b: Floats) -> Floats:
    """Squared distances `[A, B]`."""
    products: Floats = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return products.clip(0)


def as_rows(numbers: Sequence[int]) -> Rows:
    """Row numbers as an array, in ascending order, each once."""
    return np.unique(np.array(list(numbers), np.int64))
