"""What came of some runs: means over replicas."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.evaluation.metrics import COMPLETION_TITLES
from trainer.settings.describe import names
from trainer.training.run_folder import Run


@dataclass(frozen=True)
class Row:
    """A line of a result table: one way to classify, over the replicas of one setting.

    Attributes:
        setting: what tells this setting from the others in the table; empty where there is one.
        given: the modalities given, `x+w`.
        completion: what stands in for the missing ones.
        accuracy, accuracy_std: mean and standard deviation over replicas, in per cent; the latter None for one replica.
        nll: mean, in nats.
        ece: mean, in [0, 1].
        replicas: how many.
    """

    setting: str
    given: str
    completion: str
    accuracy: float
    accuracy_std: float | None
    nll: float
    ece: float
    replicas: int


@dataclass(frozen=True)
class ResultTable:
    """Rows, and what all their settings have in common."""

    common: str
    rows: tuple[Row, ...]


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in seed and split alone, together, in the order of their first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings.model_dump_json(exclude={"seed", "split", "digest"}), []).append(run)
    return list(groups.values())


def table(runs: Sequence[Run], titled: bool = False) -> ResultTable:
    """Finished runs, grouped by all settings but seed and split, a line for each way to classify.

    Args:
        titled: as for `description`.

    Raises:
        DataError: a run is not done.
    """
    groups = grouped(runs)
    common, labels = names([group[0].settings for group in groups], titled)
    rows = []
    for group, label in zip(groups, labels, strict=True):
        results = [run.result() for run in group]
        for scores in zip(*(result.scores for result in results), strict=True):
            accuracies = [100 * score.accuracy for score in scores]
            rows.append(
                Row(
                    setting=label,
                    given=scores[0].given,
                    completion=COMPLETION_TITLES[scores[0].completion],
                    accuracy=statistics.fmean(accuracies),
                    accuracy_std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
                    nll=statistics.fmean(score.nll for score in scores),
                    ece=statistics.fmean(score.ece for score in scores),
                    replicas=len(scores),
                )
            )
    return ResultTable(common, tuple(rows))


def run_as_dict(run: Run) -> dict[str, Any]:
    """A run for programs."""
    return {
        "folder": str(run.folder.resolve()),
        "settings": run.settings.model_dump(),
        "epochs": len(run.metrics()),
        "result": asdict(run.result()) if run.done else None,
    }
