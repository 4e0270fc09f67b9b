"""Tables of finished runs: scores as means over replicas."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.baselines.references import Reference, as_dict, reference_key, references_of
from trainer.evaluation.intervals import PLUS_MINUS, SPLITS_OVERLAP, mean_and_half_width
from trainer.evaluation.metrics import COMPLETION_TITLES, Score
from trainer.evaluation.subsets import every_modality, shown_among, subset_title
from trainer.reporting.paired_differences import DifferenceRow, differences
from trainer.reporting.subset_summary import SubsetSummary, summarise_subsets
from trainer.settings.describe import names
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Run

References = Mapping[Path, Sequence[Reference]]  # by the folder of a run
NOTHING_MEASURED = "the data has no test part, so nothing is measured"
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

    All subsets of the modalities have rows; of many modalities, tables for readers show some (`given`).

    Attributes:
        common: what all settings have in common, in words.
        differences: of each setting from the first, where they share two or more seeds or splits.
        replicas: what tells the replicas of a setting apart: `seeds`, `splits`, or `seeds and splits`.
        references: what everyday classifiers reach on the same labels; their `setting` is the classifier's name.
        left_out: a sentence for each of them that is not there.
    """

    common: str
    rows: tuple[ScoreRow, ...]
    differences: tuple[DifferenceRow, ...] = ()
    replicas: str = "seeds"
    references: tuple[ScoreRow, ...] = ()
    left_out: tuple[str, ...] = ()

    @cached_property
    def given(self) -> tuple[str, ...]:
        """The subsets of modalities to show: of each setting's own modalities, those of `shown_subsets`."""
        by_setting: dict[str, dict[str, None]] = {}
        for row in self.rows:
            by_setting.setdefault(row.setting, {})[row.given] = None
        return tuple(dict.fromkeys(subset for measured in by_setting.values() for subset in shown_among(measured)))

    @property
    def shown(self) -> tuple[ScoreRow, ...]:
        """The rows of the subsets to show."""
        return tuple(row for row in self.rows if row.given in self.given)

    @property
    def hidden(self) -> int:
        """How many subsets of the modalities are not shown."""
        return len({row.given for row in self.rows} - {*self.given})

    @property
    def summaries(self) -> tuple[SubsetSummary, ...]:
        """What is measured given the subsets that are not shown, by the number of modalities."""
        return summarise_subsets([row for row in self.rows if row.given not in self.given])

    def title(self, given: str) -> str:
        """What a subset of the modalities is called in this table: with many, such as `all but x`."""
        return subset_title(given, every_modality(self.given))

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
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        settings = run.settings
        key = (settings.model_dump_json(exclude=REPLICA_SETTINGS), content_of(settings))
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def content_of(settings: Settings) -> str:
    """The digest of data without splits: other data may have the same name. Splits differ in theirs, and have none."""
    return settings.digest if settings.split is None else ""


def retitled(result_table: ResultTable, titles: Sequence[str]) -> ResultTable:
    """The table with other names for its settings, in their order."""
    names_by_setting = dict(zip(dict.fromkeys(row.setting for row in result_table.rows), titles, strict=True))
    rows = tuple(replace(row, setting=names_by_setting[row.setting]) for row in result_table.rows)
    return replace(result_table, rows=rows)


def table(runs: Sequence[Run], titled: bool = False, references: References | None = None) -> ResultTable:
    """Tabulates finished runs: one row per setting (all but seed and split), given modalities and completion.

    Settings that share two or more seeds or splits with the first one are also compared with it replica by replica.

    Args:
        titled: as for `description`.
        references: what to show as references; None for those in the runs' folders.

    Raises:
        DataError: a run is not done.
    """
    groups = grouped(runs)
    common, labels = names([group[0].settings for group in groups], titled)
    evaluated = [[(run, run.result()) for run in group] for group in groups]
    rows = []
    for replicas, label in zip(evaluated, labels, strict=True):
        for scores in zip(*(result.scores for _, result in replicas), strict=True):
            rows.append(_row(label, COMPLETION_TITLES[scores[0].completion], scores))
    there = references_of(runs) if references is None else references
    reference_scores, left_out = reference_rows(runs, there)
    return ResultTable(
        common, tuple(rows), tuple(differences(labels, evaluated)), _replicas(groups), reference_scores, left_out
    )


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
    accuracy, half_width = mean_and_half_width([100 * score.accuracy for score in scores])
    return ScoreRow(
        setting=setting,
        given=scores[0].given,
        completion=completion,
        accuracy=accuracy,
        accuracy_ci95=half_width,
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
