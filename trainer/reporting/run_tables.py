"""Tables of finished runs: scores as means over replicas."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.evaluation.intervals import PLUS_MINUS, SPLITS_OVERLAP, mean_and_half_width
from trainer.evaluation.metrics import COMPLETION_TITLES
from trainer.reporting.paired_differences import DifferenceRow, differences
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
        accuracy: mean over replicas, in per cent.
        accuracy_ci95: half the width of the mean's 95 % confidence interval (Student's t over replicas), in percentage
            points; None for one replica.
        nll: mean negative log-likelihood, in nats.
        ece: mean expected calibration error, in [0, 1].
        replicas: how many there are.
    """

    setting: str
    given: str
    completion: str
    accuracy: float
    accuracy_ci95: float | None
    nll: float
    ece: float
    replicas: int


@dataclass(frozen=True)
class ResultTable:
    """Rows, and what a reader needs to understand them.

    Attributes:
        common: what all settings have in common, in words.
        differences: of each setting from the first, where they share two or more seeds or splits.
        replicas: what tells the replicas of a setting apart: `seeds`, `splits`, or `seeds and splits`.
    """

    common: str
    rows: tuple[ScoreRow, ...]
    differences: tuple[DifferenceRow, ...] = ()
    replicas: str = "seeds"

    @property
    def plus_minus(self) -> str:
        """What ± means in the rows, in words; empty if there is none."""
        counts = [row.replicas for row in self.rows if row.accuracy_ci95 is not None]
        if not counts:
            return ""
        approximate = f"; {SPLITS_OVERLAP}" if "splits" in self.replicas else ""
        return f"{PLUS_MINUS} over {_range(counts)} replicas ({self.replicas}){approximate}"

    @property
    def differences_title(self) -> str:
        """What the differences are, in words that refer to `plus_minus`; empty if there are none."""
        if not self.differences:
            return ""
        first = self.differences[0].reference
        pairs = _range([row.pairs for row in self.differences])
        return (
            f"Accuracy minus that of the first setting{f' ({first})' if first else ''}, in percentage points, "
            f"paired over {pairs} shared replicas; ± as above, for the mean difference"
        )


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs that differ only in seed and split; groups are in the order of their first runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings.model_dump_json(exclude=REPLICA_SETTINGS), []).append(run)
    return list(groups.values())


def table(runs: Sequence[Run], titled: bool = False) -> ResultTable:
    """Tabulates finished runs: one row per setting (all but seed and split), given modalities and completion.

    Settings that share two or more seeds or splits with the first one are also compared with it replica by replica.

    Args:
        titled: as for `description`.

    Raises:
        DataError: a run is not done.
    """
    groups = grouped(runs)
    common, labels = names([group[0].settings for group in groups], titled)
    evaluated = [[(run, run.result()) for run in group] for group in groups]
    rows = []
    for replicas, label in zip(evaluated, labels, strict=True):
        for scores in zip(*(result.scores for _, result in replicas), strict=True):
            accuracy, half_width = mean_and_half_width([100 * score.accuracy for score in scores])
            rows.append(
                ScoreRow(
                    setting=label,
                    given=scores[0].given,
                    completion=COMPLETION_TITLES[scores[0].completion],
                    accuracy=accuracy,
                    accuracy_ci95=half_width,
                    nll=statistics.fmean(score.nll for score in scores),
                    ece=statistics.fmean(score.ece for score in scores),
                    replicas=len(scores),
                )
            )
    return ResultTable(common, tuple(rows), tuple(differences(labels, evaluated)), _replicas(groups))


def _range(counts: Sequence[int]) -> str:
    """`5`, or `2 to 5`."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _replicas(groups: Sequence[Sequence[Run]]) -> str:
    """What tells the replicas of a setting apart, in words."""
    seeds, splits = (
        any(len({getattr(run.settings, name) for run in group}) > 1 for group in groups) for name in ("seed", "split")
    )
    return " and ".join(["seeds"] * (seeds or not splits) + ["splits"] * splits)


def run_as_dict(run: Run) -> dict[str, Any]:
    """A run as JSON values."""
    return {
        "folder": str(run.folder.resolve()),
        "settings": run.settings.model_dump(),
        "epochs": len(run.metrics()),
        "result": asdict(run.result()) if run.done else None,
    }
