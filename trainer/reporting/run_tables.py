"""Tables of finished runs: scores as means over replicas."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.baselines.references import Reference, as_dict, reference_key, references_of
from trainer.evaluation.metrics import COMPLETION_TITLES, Score
from trainer.settings.describe import names
from trainer.training.run_folder import Run

References = Mapping[Path, Sequence[Reference]]  # by the folder of a run
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
    """Rows, and what all their settings have in common, in words.

    Attributes:
        references: what everyday classifiers reach on the same labels; their `setting` is the classifier's name.
        left_out: a sentence for each of them that is not there.
    """

    common: str
    rows: tuple[ScoreRow, ...]
    references: tuple[ScoreRow, ...] = ()
    left_out: tuple[str, ...] = ()


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs that differ only in seed and split; groups are in the order of their first runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings.model_dump_json(exclude=REPLICA_SETTINGS), []).append(run)
    return list(groups.values())


def table(runs: Sequence[Run], titled: bool = False, references: References | None = None) -> ResultTable:
    """Tabulates finished runs: one row per setting (all but seed and split), given modalities and completion.

    Args:
        titled: as for `description`.
        references: what to show as references; None for those in the runs' folders.

    Raises:
        DataError: a run is not done.
    """
    groups = grouped(runs)
    common, labels = names([group[0].settings for group in groups], titled)
    rows = []
    for group, label in zip(groups, labels, strict=True):
        results = [run.result() for run in group]
        for scores in zip(*(result.scores for result in results), strict=True):
            rows.append(_row(label, COMPLETION_TITLES[scores[0].completion], scores))
    return ResultTable(
        common, tuple(rows), *reference_rows(runs, references_of(runs) if references is None else references)
    )


def reference_rows(runs: Sequence[Run], references: References) -> tuple[tuple[ScoreRow, ...], tuple[str, ...]]:
    """The references of runs, as means over seeds and splits, and sentences about those left out.

    Runs on other labels, modalities or data have references of their own.
    """
    by_group: dict[tuple[str, tuple[str, ...], int | str], dict[tuple[object, ...], Run]] = {}
    for run in (run for run in runs if run.folder in references):
        settings = run.settings
        group = (settings.data, settings.modalities, settings.labels)
        by_group.setdefault(group, {}).setdefault(reference_key(settings), run)
    rows: list[ScoreRow] = []
    left_out: list[str] = []
    for (data, modalities, labels), replicas in by_group.items():
        differing = [f"{labels} labels"] * (len({group[2] for group in by_group}) > 1)
        differing += [data] * (len({group[0] for group in by_group}) > 1)
        differing += [f"on {'+'.join(modalities) or 'all'}"] * (len({group[1] for group in by_group}) > 1)
        scores: dict[tuple[str, str], list[Score]] = {}
        for run in replicas.values():
            for reference in references[run.folder]:
                for score in reference.scores:
                    scores.setdefault((reference.title, score.given), []).append(score)
                left_out.append(reference.sentence)
        for (title, _), of_replicas in scores.items():
            rows.append(_row(", ".join([title, *differing]), "-", of_replicas))
    return tuple(rows), tuple(dict.fromkeys(filter(None, left_out)))


def _row(setting: str, completion: str, scores: Sequence[Score]) -> ScoreRow:
    """The row of some replicas' scores."""
    accuracies = [100 * score.accuracy for score in scores]
    return ScoreRow(
        setting=setting,
        given=scores[0].given,
        completion=completion,
        accuracy=statistics.fmean(accuracies),
        accuracy_std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        nll=statistics.fmean(score.nll for score in scores),
        ece=statistics.fmean(score.ece for score in scores),
        replicas=len(scores),
    )


def run_as_dict(run: Run, references: References | None = None) -> dict[str, Any]:
    """A run as JSON values.

    Args:
        references: the references to add; None for those in its folder.

    Raises:
        DataError: a file of the run is damaged.
    """
    there = (references_of([run]) if references is None else references).get(run.folder)
    return {
        "folder": str(run.folder.resolve()),
        "settings": run.settings.model_dump(),
        "epochs": len(run.metrics()),
        "result": asdict(run.result()) if run.done else None,
        "reference": None if there is None else as_dict(there),
    }
