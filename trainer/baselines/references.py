"""Reference lines: what two everyday classifiers reach on the labels and test examples of a run, in a second or two.

They lie in the run's folder as `reference.json`, so that tables show them without the shard. They depend on the data,
the labelled rows and the seed alone, and the file holds no time, so equal runs have equal files.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import DataError, StorageError, TrainingError
from pipeline.runtime.files import write_atomically
from pipeline.runtime.texts import read_text
from pipeline.shards.shard import Shard
from trainer.baselines.rival_task import Task, load_task, size_of
from trainer.baselines.rivals import PATIENT, QUICK, REFERENCES, measure, reason_to_leave_out, rival_named
from trainer.evaluation.metrics import Score
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Run

_log = logging.getLogger(__name__)
REFERENCE = "reference.json"


@dataclass(frozen=True)
class Reference:
    """The scores of one reference classifier.

    Attributes:
        name: the rival's name (`trainer.baselines.rivals.RIVALS`).
        scores: one for each modality alone, and one for all; empty if it was left out.
        left_out: why it was left out, as the end of a sentence; None if it was not.
    """

    name: str
    scores: tuple[Score, ...]
    left_out: str | None = None

    @property
    def title(self) -> str:
        """Its name in tables."""
        return rival_named(self.name).title

    @property
    def sentence(self) -> str:
        """A sentence that says why it was left out; empty if it was not."""
        return f"{self.title} was left out: {self.left_out}." if self.left_out else ""


def references(settings: Settings, shard: Shard) -> tuple[Reference, ...]:
    """Computes the references of a run; one that would take longer than a second or two is left out.

    Raises:
        DataError, UsageError: the shard does not fit the settings, or is damaged.
    """
    size = size_of(settings, shard)
    reasons = {name: reason_to_leave_out(rival_named(name), size, QUICK) for name in REFERENCES}
    for name, reason in reasons.items():
        if reason is not None and size.test and reason_to_leave_out(rival_named(name), size, PATIENT) is None:
            reasons[name] = f"{reason}; mmssl compare computes it"
    if settings.window is not None:
        reasons = dict.fromkeys(REFERENCES, "the run streams its data from disk")
    wanted = [name for name, reason in reasons.items() if reason is None]
    if not wanted:
        return tuple(Reference(name, (), reason) for name, reason in reasons.items())
    task = load_task(settings, shard, labelled_only=wanted == ["logistic-regression"])
    return tuple(
        _measured(name, task) if reason is None else Reference(name, (), reason) for name, reason in reasons.items()
    )


def _measured(name: str, task: Task) -> Reference:
    try:
        return Reference(name, measure(rival_named(name), task).scores)
    except TrainingError as error:
        return Reference(name, (), error.message)


def reference_key(settings: Settings) -> tuple[object, ...]:
    """Equal for runs with the same references."""
    return (
        settings.digest,
        settings.modalities,
        settings.labels,
        settings.answers,
        settings.held_out,
        settings.seed,
        settings.window is None,
    )


def add_references(runs: Iterable[Run], shard_of: Callable[[Run], Shard]) -> dict[Path, tuple[Reference, ...]]:
    """Each finished run's references by its folder; those that its folder lacks are computed and written there.

    A folder that cannot be written to is left as it is, with a warning.

    Raises:
        DataError: a file of references is damaged, or a shard is missing or damaged.
    """
    by_folder: dict[Path, tuple[Reference, ...]] = {}
    computed: dict[tuple[object, ...], tuple[Reference, ...]] = {}
    for run in runs:
        there = read_references(run)
        if there is None:
            key = reference_key(run.settings)
            if key not in computed:
                computed[key] = references(run.settings, shard_of(run))
            there = computed[key]
            try:
                write_atomically(run.folder / REFERENCE, json.dumps(as_dict(there), indent=2) + "\n")
            except StorageError as error:
                _log.warning("the references are not kept: %s", error.message)
        by_folder[run.folder] = there
    return by_folder


def references_of(runs: Iterable[Run]) -> dict[Path, tuple[Reference, ...]]:
    """The references in the folders of runs, by folder; a folder without any, or with damaged ones, is left out."""
    read = {}
    for run in runs:
        try:
            there = read_references(run)
        except DataError as error:
            _log.warning("left out: %s", error.message)
            continue
        if there is not None:
            read[run.folder] = there
    return read


def read_references(run: Run) -> tuple[Reference, ...] | None:
    """The references in a run's folder; None if there are none.

    Raises:
        DataError: the file is damaged.
    """
    path = run.folder / REFERENCE
    try:
        values = json.loads(read_text(path))
        return tuple(
            Reference(rival_named(name).name, tuple(Score(**score) for score in of["scores"]), of["left_out"])
            for name, of in values.items()
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not hold references: {error}", "delete it; the command that trained the run writes it again"
        ) from None


def as_dict(computed: Sequence[Reference]) -> dict[str, Any]:
    """References as JSON values, by name."""
    return {
        reference.name: {"scores": [asdict(score) for score in reference.scores], "left_out": reference.left_out}
        for reference in computed
    }
