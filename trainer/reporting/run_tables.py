"""Tables of finished runs: scores as means over replicas."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.evaluation.metrics import COMPLETION_TITLES
from trainer.settings.describe import names
from trainer.training.run_folder import Run

REPLICA_SETTINGS = {"seed", "split", "digest"}  # the settings in which replicas differ


@dataclass(frozen=True)
class ScoreRow:
    """A row of a result table: the scores of one setting, given some of the modalities, over its replicas.

    Attributes:
        setting: what tells this setting from the others in the table; empty if there is only one.
        given: the given modalities, `x+w`.
        completion: what stands in for the missing ones, in words.
        accuracy, accuracy_std: mean and standard deviation over replicas, in per cent; the latter None for one replica.
        nll: mean negative log-likelihood, in nats.
        ece: mean expected calibration error, in [0, 1].
        replicas: how many there are.
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
    """Rows, and what all their settings have in common, in words."""

    common: str
    rows: tuple[ScoreRow, ...]


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs that differ only in seed and split; groups are in the order of their first runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings.model_dump_json(exclude=REPLICA_SETTINGS), []).append(run)
    return list(groups.values())


def table(runs: Sequence[Run], titled: bool = False) -> ResultTable:
    """Tabulates finished runs: one row per setting (all but seed and split), given modalities and completion.

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
                ScoreRow(
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
    """A run as JSON values."""
    return {
        "folder": str(run.folder.resolve()),
        "settings": run.settings.model_dump(),
        "epochs": len(run.metrics()),
        "result": asdict(run.result()) if run.done else None,
    }
