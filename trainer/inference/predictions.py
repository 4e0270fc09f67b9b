"""What a model says of some rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOBODY = -1  # stands for the class where nothing was given, and for a percentile that is not known


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers for N rows, K classes and M modalities.

    Attributes:
        classes: the names of the classes.
        modalities: the names of the modalities.
        present: which modalities were given, bool `[N, M]`.
        probabilities: `[N, K]` float32; each row sums to 1.
        opinions: the class that each given modality alone makes most probable, int64 `[N, M]`; -1 if it is missing.
        opinion_probabilities: its probability, `[N, M]` float32; 0 if the modality is missing.
        unlikeness: the share of known rows with the same modalities that are less unlike the training rows, in
            percent, `[N]` float64; -1 if it is not known.
        thresholds: the least probability with which a row is answered, `[N]` float64; infinite for one that always
            abstains, 0 where there is no threshold.
    """

    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    present: NDArray[np.bool_]
    probabilities: NDArray[np.float32]
    opinions: NDArray[np.int64]
    opinion_probabilities: NDArray[np.float32]
    unlikeness: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    @property
    def rows(self) -> int:
        """N."""
        return len(self.probabilities)

    @cached_property
    def label(self) -> NDArray[np.int64]:
        """The most probable class, `[N]`."""
        best: NDArray[np.int64] = self.probabilities.argmax(-1)
        return best

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Its probability, `[N]`."""
        best: NDArray[np.float32] = self.probabilities.max(-1)
        return best

    @cached_property
    def runner_up(self) -> NDArray[np.int64]:
        """The second most probable class, `[N]`."""
        others = self.probabilities.copy()
        others[np.arange(self.rows), self.label] = -1
        second: NDArray[np.int64] = others.argmax(-1)
        return second

    @cached_property
    def runner_up_probability(self) -> NDArray[np.float32]:
        """Its probability, `[N]`."""
        return self.probabilities[np.arange(self.rows), self.runner_up]

    @cached_property
    def abstained(self) -> NDArray[np.bool_]:
        """Whether the probability is below the threshold, `[N]`."""
        return self.probability < self.thresholds

    @property
    def given(self) -> list[str]:
        """The modalities of each row, such as `x+w`."""
        patterns, which = np.unique(self.present, axis=0, return_inverse=True)
        names = ["+".join(np.asarray(self.modalities)[pattern]) for pattern in patterns]
        return [names[number] for number in which.reshape(-1)]

    def columns(self, probabilities: bool = False) -> dict[str, list[Any]]:
        """The answers as columns of plain values, in the order of files; None where there is no answer.

        Args:
            probabilities: whether to add a column per class.
        """
        names = np.asarray(self.classes, dtype=object)
        columns: dict[str, list[Any]] = {
            "given": self.given,
            "label": names[self.label].tolist(),
            "probability": _rounded(self.probability),
            "runner_up": names[self.runner_up].tolist(),
            "runner_up_probability": _rounded(self.runner_up_probability),
        }
        for m, modality in enumerate(self.modalities):
            heard, opinion = self.present[:, m], names[self.opinions[:, m]].tolist()
            surety = _rounded(self.opinion_probabilities[:, m])
            columns[f"{modality}.label"] = _only(opinion, heard)
            columns[f"{modality}.probability"] = _only(surety, heard)
        columns["unlikeness"] = _only(self.unlikeness.round(1).tolist(), self.unlikeness >= 0)
        columns["abstained"] = self.abstained.tolist()
        if probabilities:
            columns |= {f"p({name})": _rounded(self.probabilities[:, k]) for k, name in enumerate(self.classes)}
        return columns


def joined(parts: Sequence[Predictions]) -> Predictions:
    """The predictions for consecutive blocks of rows as one; there is at least one block."""
    first = parts[0]

    def rows(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    return Predictions(
        first.classes,
        first.modalities,
        rows("present"),
        rows("probabilities"),
        rows("opinions"),
        rows("opinion_probabilities"),
        rows("unlikeness"),
        rows("thresholds"),
    )


_CODE = np.dtype(">u8")  # the first byte counts most, so that numbers sort as the rows do


def patterns(present: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Each pattern of modalities `[M]` that occurs in `[N, M]`, with its rows in order."""
    if present.all():
        if len(present):
            yield present[0], np.arange(len(present))
        return
    packed = np.packbits(present, axis=1)  # [N, bytes]
    codes: NDArray[np.unsignedinteger] = packed
    if packed.shape[1] <= _CODE.itemsize:  # a number each, which is faster to sort than rows are
        codes = np.pad(packed, ((0, 0), (0, _CODE.itemsize - packed.shape[1]))).view(_CODE).reshape(-1)
    _, first, number, counts = np.unique(codes, axis=0, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(number.reshape(-1), kind="stable")
    for row, rows in zip(first, np.split(order, counts.cumsum()[:-1]), strict=True):
        yield present[row], rows


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _only(values: list[Any], there: NDArray[np.bool_]) -> list[Any]:
    return [value if present else None for value, present in zip(values, there.tolist(), strict=True)]
