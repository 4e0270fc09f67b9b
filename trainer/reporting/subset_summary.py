"""The scores of the subsets of modalities that a table does not show one by one, by the number of modalities."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Scored(Protocol):
    """A row of a table, as `trainer.reporting.run_tables.ScoreRow`."""

    @property
    def setting(self) -> str: ...
    @property
    def given(self) -> str: ...
    @property
    def completion(self) -> str: ...
    @property
    def accuracy(self) -> float: ...


@dataclass(frozen=True)
class SubsetSummary:
    """The accuracies of one setting, given so many of the modalities.

    Attributes:
        setting, completion: as in the rows.
        modalities: how many are given.
        subsets: how many of these there are.
        mean: of the accuracies, in per cent.
        lowest, highest: the subset, `x+w`, and its accuracy in per cent.
    """

    setting: str
    completion: str
    modalities: int
    subsets: int
    mean: float
    lowest: tuple[str, float]
    highest: tuple[str, float]


def summarise_subsets(rows: Sequence[Scored]) -> tuple[SubsetSummary, ...]:
    """A summary for each setting, completion and number of modalities, in the order of the rows."""
    alike: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in rows:
        alike.setdefault((row.setting, row.completion, row.given.count("+") + 1), {})[row.given] = row.accuracy
    return tuple(
        SubsetSummary(
            setting=setting,
            completion=completion,
            modalities=count,
            subsets=len(accuracy),
            mean=statistics.fmean(accuracy.values()),
            lowest=min(accuracy.items(), key=lambda of: of[1]),
            highest=max(accuracy.items(), key=lambda of: of[1]),
        )
        for (setting, completion, count), accuracy in alike.items()
    )
