"""A run's folder: what was asked for, what came of it, and what resuming it needs.

settings.json            the resolved settings
labelled.txt             ids of the labelled training examples, one a line
metrics.csv              a line an epoch: the objective's terms and the accuracies
checkpoint.safetensors   everything that resuming needs, taken at one instant; gone when the run is done
weights.safetensors      the trained model
result.json              scores on the test set; its presence says that the run is done
provenance.json          where, when, with what: the only file that differs between equal runs

Replicas that are trained in one pass are saved, and finished, all or none: each first has a file
`checkpoint-next.safetensors`, or `evaluation.json`, and only when all have theirs do these take the places of
checkpoint and result. A process that is killed at any moment thus leaves a stack that goes on as one; apart, its
replicas would end in other last digits.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.files import flush, remove, storage_error, write_atomically
from pipeline.runtime.leases import Lease
from pipeline.runtime.tensor_files import MEND, TensorFile, read_tensor_file, write_tensor_file
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

Checkpoint = TensorFile  # of one replica
CHECKPOINT, PROPOSED = "checkpoint.safetensors", "checkpoint-next.safetensors"
EVALUATION = "evaluation.json"


class Run:
    """One replica's folder.

    Attributes:
        lease: of whoever trains it; nothing is written any more once it is lost.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.lease: Lease | None = None

    @classmethod
    def prepare(cls, folder: Path, settings: Settings) -> "Run":
        """The run of these settings in this folder, new or begun before; writes nothing.

        Raises:
            DataError: the folder holds a different run.
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
    def open(cls, folder: Path) -> "Run":
        """The run in a folder.

        Raises:
            DataError: there is none, or its settings cannot be read.
        """
        values = read_settings(folder)
        try:
            return cls(folder, build(values, source=str(folder / SETTINGS)))
        except UsageError as error:  # a file's fault, not the command's
            raise DataError(error.message, "delete the run's folder and train again") from None

    @property
    def done(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def begun(self) -> bool:
        return (self.folder / CHECKPOINT).exists()

    @property
    def evaluated(self) -> bool:
        """Whether all is there but for the others of its stack."""
        return (self.folder / EVALUATION).exists()

    def begin(self, labelled: Sequence[str]) -> None:
        """Makes the folder, and writes into it the settings and the ids of the labelled examples."""
        values = {"format": FORMAT, **self.settings.model_dump(mode="json")}
        write_atomically(self.folder / SETTINGS, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        write_atomically(self.folder / LABELLED, "".join(f"{name}\n" for name in labelled))

    def labelled_ids(self) -> list[str]:
        """The ids of the training examples that kept their label.

        Raises:
            DataError: the run's list of them cannot be read.
        """
        path = self.folder / LABELLED
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path}: {error}", "delete the run's folder and train again") from None

    def metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, one an epoch; none where there is no such file yet.

        Raises:
            DataError: it is not what training wrote.
        """
        return read_metrics(self.folder)

    def write_metrics(self, rows: Sequence[Mapping[str, object]]) -> None:
        self._check()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder / METRICS, text.getvalue())

    def write_checkpoint(self, checkpoint: Checkpoint, name: str = CHECKPOINT) -> None:
        """Writes the checkpoint, or, as PROPOSED, beside it the one that is to replace it."""
        self._check()
        values = {**checkpoint.values, "settings": self.settings.fingerprint()}
        write_tensor_file(self.folder / name, Checkpoint(checkpoint.tensors, values))

    def accept_checkpoint(self) -> None:
        """The proposed checkpoint becomes the checkpoint."""
        self._rename(PROPOSED, CHECKPOINT)

    def discard_proposal(self) -> None:
        remove(self.folder / PROPOSED)

    def _rename(self, name: str, new: str) -> None:
        self._check()
        try:
            os.replace(self.folder / name, self.folder / new)
            flush(self.folder)
        except OSError as error:
            raise storage_error(self.folder / new, error) from error

    def read_checkpoint(self, name: str = CHECKPOINT) -> Checkpoint | None:
        """The checkpoint, or None where none was written yet.

        Raises:
            DataError: it is damaged, or another run's.
        """
        path = self.folder / name
        if not path.exists():
            return None
        checkpoint = read_tensor_file(path)
        if checkpoint.values.get("settings") != self.settings.fingerprint():
            raise DataError(f"{path} belongs to a run of other settings", MEND)
        return checkpoint

    def _check(self) -> None:
        if self.lease is not None:
            self.lease.check()

    def write_weights(self, tensors: dict[str, Tensor]) -> None:
        self._check()
        write_tensor_file(self.folder / WEIGHTS, Checkpoint(tensors, {}))

    def read_weights(self) -> dict[str, Tensor]:
        return read_tensor_file(self.folder / WEIGHTS).tensors

    def write_provenance(self, values: Mapping[str, Any]) -> None:
        write_atomically(self.folder / PROVENANCE, json.dumps(values, indent=2) + "\n")

    def provenance(self) -> dict[str, Any]:
        return read_json(self.folder / PROVENANCE)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes what is to be the result once all of the stack have theirs."""
        self._check()
        values = {"elbo": evaluation.elbo, "scores": [asdict(score) for score in evaluation.scores]}
        write_atomically(self.folder / EVALUATION, json.dumps(values, indent=2) + "\n")

    def conclude(self) -> None:
        """The evaluation becomes the result; with it the run is done. Its checkpoint, not needed any more, goes first:
        nobody would look for it later.
        """
        remove(self.folder / PROPOSED)
        remove(self.folder / CHECKPOINT)
        self._rename(EVALUATION, RESULT)

    def finish(self, evaluation: Evaluation) -> None:
        """Writes the result of a run that is trained by itself."""
        self.write_evaluation(evaluation)
        self.conclude()

    def result(self) -> Evaluation:
        """The scores of a run that is done.

        Raises:
            DataError: it is not done, or its result cannot be read.
        """
        path = self.folder / RESULT
        values = read_json(path)
        try:
            return Evaluation(tuple(Score(**score) for score in values["scores"]), values["elbo"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no result: {error}", "delete it and train again: the run evaluates anew"
            ) from None


def find(folders: Iterable[Path]) -> list[Run]:
    """The runs in these folders or anywhere below them, by path."""
    return [Run.open(folder) for folder in find_folders(folders)]
