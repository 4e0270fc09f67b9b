"""The folder of a run: its settings, its results, and what is needed to resume it.

settings.json            the resolved settings
labelled.txt             the ids of the labelled training examples, one per line
metrics.csv              one row per epoch: the objective's terms and the accuracies
checkpoint.safetensors   everything needed to resume, captured at one instant; deleted when the run is done
weights.safetensors      the trained model
result.json              the scores on the test set; the run is done once this file exists
reference.json           what everyday classifiers reach on the same labels, added by commands (trainer.baselines)
provenance.json          where, when and with what the run was made: the only file that differs between equal runs

Stacked replicas are saved and finished together, in two phases: each writes `checkpoint-next.safetensors` (or
`evaluation.json`), and only when all have done so are these renamed to the checkpoint (or the result). A process that
is killed at any moment thus leaves a stack that can be resumed as a stack. Resumed one by one, its replicas would
differ in the last bits, and in their number of steps where their shards differ in rows.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.runtime.csv_writing import csv_lines
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.files import flush, remove, storage_error, write_atomically
from pipeline.runtime.leases import Lease
from pipeline.runtime.tensor_files import DAMAGE_HINT, TensorFile, read_tensor_file, write_tensor_file
from pipeline.runtime.texts import read_text
from pipeline.runtime.versions import newer
from trainer.evaluation.metrics import Evaluation, Score
from trainer.settings.run_settings import Settings, build, differences
from trainer.training.run_listing import (
    FORMAT,
    LABELLED,
    METRICS,
    PROVENANCE,
    RESULT,
    SETTINGS,
    WEIGHTS,
    find_folders,
    read_json,
    read_metrics,
    read_settings,
)

Checkpoint = TensorFile  # the checkpoint of one replica
CHECKPOINT, PROPOSED = "checkpoint.safetensors", "checkpoint-next.safetensors"
EVALUATION = "evaluation.json"
_SCORE_FIELDS = {field.name for field in fields(Score)}
_log = logging.getLogger(__name__)


class Run:
    """One replica and its folder.

    Attributes:
        lease: the lease of the process that trains the run; once it is lost, nothing more is written.
        places: shards, and folders of shards, in which to look for the run's own if it has moved.
    """

    def __init__(self, folder: Path, settings: Settings, places: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.settings = settings
        self.places = tuple(places)
        self.lease: Lease | None = None

    @classmethod
    def prepare(cls, folder: Path, settings: Settings) -> "Run":
        """The run with these settings in this folder, new or already started; writes nothing.

        Raises:
            DataError: the folder holds a different run or other files.
        """
        if (folder / SETTINGS).exists():
            run = cls.open(folder)
            if run.settings != settings:
                raise DataError(
                    f"{folder} holds a different run: asked for {'; '.join(differences(settings, run.settings))}",
                    "choose another folder with --out, or delete this one",
                )
            return run
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise DataError(f"{folder} holds other files, but no run", "choose another folder with --out")
        return cls(folder, settings)

    @classmethod
    def open(cls, folder: Path, places: Sequence[Path] = ()) -> "Run":
        """Opens the run in a folder.

        Args:
            places: where to look for its shard, besides the path it was trained from and the folders that hold it.

        Raises:
            DataError: the folder holds no run, the settings of the run cannot be read, or a newer version wrote it.
        """
        values = read_settings(folder)
        try:
            return cls(folder, build(values, source=str(folder / SETTINGS)), places)
        except UsageError as error:  # the file is wrong, not the command
            raise DataError(error.message, "delete the run's folder and train again") from None

    @property
    def done(self) -> bool:
        """Whether the run has its result."""
        return (self.folder / RESULT).exists()

    @property
    def begun(self) -> bool:
        """Whether the run has a checkpoint."""
        return (self.folder / CHECKPOINT).exists()

    @property
    def evaluated(self) -> bool:
        """Whether the run is trained and evaluated, and only waits for the rest of its stack."""
        return (self.folder / EVALUATION).exists()

    def begin(self, labelled: Sequence[str]) -> None:
        """Creates the folder and writes the settings and the ids of the labelled examples into it."""
        values = {"format": FORMAT, **self.settings.model_dump(mode="json")}
        write_atomically(self.folder / SETTINGS, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        write_atomically(self.folder / LABELLED, "".join(f"{name}\n" for name in labelled))

    def labelled_ids(self) -> list[str]:
        """The ids of the labelled training examples.

        Raises:
            DataError: the file cannot be read.
        """
        path = self.folder / LABELLED
        try:
            return read_text(path).split("\n")[:-1]  # `splitlines` also parts at what an id may hold, such as U+2028
        except OSError as error:
            raise DataError(f"cannot read {path}: {error}", "delete the run's folder and train again") from None

    def metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, one per epoch; empty if there is no such file yet.

        Raises:
            DataError: the file is not what training wrote.
        """
        return read_metrics(self.folder)

    def write_metrics(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Writes metrics.csv; its columns are the keys of the first row."""
        self._check_lease()
        lines = csv_lines([rows[0], *([row[name] for name in rows[0]] for row in rows)])
        write_atomically(self.folder / METRICS, "".join(lines))

    def write_checkpoint(self, checkpoint: Checkpoint, name: str = CHECKPOINT) -> None:
        """Writes the checkpoint; named PROPOSED, it is written next to the current one, which it is to replace."""
        self._check_lease()
        values = {**checkpoint.values, "settings": self.settings.fingerprint()}
        write_tensor_file(self.folder / name, Checkpoint(checkpoint.tensors, values))

    def accept_checkpoint(self) -> None:
        """Replaces the checkpoint by the proposed one."""
        self._rename(PROPOSED, CHECKPOINT)

    def discard_proposal(self) -> None:
        """Deletes the proposed checkpoint, if there is one."""
        remove(self.folder / PROPOSED)

    def _rename(self, name: str, new: str) -> None:
        self._check_lease()
        try:
            os.replace(self.folder / name, self.folder / new)
            flush(self.folder)
        except OSError as error:
            raise storage_error(self.folder / new, error) from error

    def read_checkpoint(self, name: str = CHECKPOINT) -> Checkpoint | None:
        """Reads the checkpoint; None if there is none yet.

        Raises:
            DataError: it is damaged, or belongs to another run.
        """
        path = self.folder / name
        if not path.exists():
            return None
        checkpoint = read_tensor_file(path)
        if checkpoint.values.get("settings") != self.settings.fingerprint():
            raise DataError(f"{path} belongs to a run with other settings", DAMAGE_HINT)
        return checkpoint

    def _check_lease(self) -> None:
        if self.lease is not None:
            self.lease.check()

    def write_weights(self, tensors: dict[str, Tensor]) -> None:
        """Writes the trained weights."""
        self._check_lease()
        write_tensor_file(self.folder / WEIGHTS, Checkpoint(tensors, {}))

    def read_weights(self) -> dict[str, Tensor]:
        """The trained weights, by name.

        Raises:
            DataError: the file is missing or damaged.
        """
        return read_tensor_file(self.folder / WEIGHTS).tensors

    def write_provenance(self, values: Mapping[str, Any]) -> None:
        """Writes where, when and with what the run was made."""
        write_atomically(self.folder / PROVENANCE, json.dumps(values, indent=2) + "\n")

    def provenance(self) -> dict[str, Any]:
        """Where, when and with what the run was made.

        Raises:
            DataError: the file is missing or damaged.
        """
        return read_json(self.folder / PROVENANCE)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes the evaluation, which becomes the result once the whole stack has been evaluated."""
        self._check_lease()
        values = {"elbo": evaluation.elbo, "scores": [asdict(score) for score in evaluation.scores]}
        write_atomically(self.folder / EVALUATION, json.dumps(values, indent=2) + "\n")

    def conclude(self) -> None:
        """Turns the evaluation into the result, which completes the run.

        The checkpoint is no longer needed and is deleted first, because nothing cleans up a run that is done.
        """
        remove(self.folder / PROPOSED)
        remove(self.folder / CHECKPOINT)
        self._rename(EVALUATION, RESULT)

    def finish(self, evaluation: Evaluation) -> None:
        """Writes the result of a run that is not part of a stack."""
        self.write_evaluation(evaluation)
        self.conclude()

    def result(self) -> Evaluation:
        """The scores of a run that is done.

        Raises:
            NewerError: a newer version wrote it.
        DataError: the run is not done, or its result cannot be read.
        """
        path = self.folder / RESULT
        values = read_json(path)
        try:
            unknown = {name for score in values["scores"] for name in score} - _SCORE_FIELDS
            if unknown:
                raise newer(path, f"its scores have '{min(unknown)[:80]}'", "does not know that")
            return Evaluation(tuple(Score(**score) for score in values["scores"]), values["elbo"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not a result: {error}", "delete it and train again: the run is evaluated again"
            ) from None

    def check(self) -> None:
        """Reads what a report shows of the run.

        Raises:
            DataError: a file is missing or damaged.
        """
        self.metrics()
        if self.done:
            self.result()
            self.provenance()


def find(folders: Iterable[Path], places: Sequence[Path] = ()) -> list[Run]:
    """The runs in these folders or anywhere below them, sorted by path; what cannot be read is named and left out."""
    runs = []
    for folder in find_folders(folders):
        try:
            run = Run.open(folder, places)
            run.check()
            runs.append(run)
        except DataError as error:
            _log.warning("left out: %s", error.message)
    return runs
