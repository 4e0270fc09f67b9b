"""Loads finished runs with their shards, data and trained models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.finding import locate_shard
from pipeline.shards.shard import Shard
from trainer.data.answers import answered
from trainer.data.interface import Data
from trainer.data.streaming import load
from trainer.training.method import GenerativeModel, TrainedModel, method_of
from trainer.training.run_folder import Run
from trainer.training.run_listing import PROVENANCE

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LoadedRun:
    """A finished run with its shard, its data and its trained model."""

    run: Run
    shard: Shard
    data: Data
    trained: TrainedModel

    @property
    def generative(self) -> GenerativeModel:
        """The trained model as one that can generate.

        Raises:
            UsageError: the model has no latent variable.
        """
        if not isinstance(self.trained, GenerativeModel):
            raise UsageError(
                f"{self.run.folder} holds {self.run.settings.model}, which has no latent variable and generates nothing"
            )
        return self.trained


def load_run(run: Run, device: torch.device = CPU) -> LoadedRun:
    """Loads one finished run.

    Raises:
        DataError: the run is not done, its weights are damaged, or its shard is missing or not the one it was trained
            on.
    """
    (loaded,) = load_runs([run], device)
    return loaded


def load_runs(runs: Sequence[Run], device: torch.device = CPU) -> Iterator[LoadedRun]:
    """Loads finished runs one at a time, sorted so that data is read as rarely as possible.

    Data that was streamed in training is streamed here too.

    Raises:
        DataError: as for `load_run`.
    """
    shard: Shard | None = None
    data: Data | None = None
    loaded_key = ""
    for run in sorted(runs, key=_data_key):
        if shard is None or shard.digest != run.settings.digest:
            shard = shard_of(run)
        shard = answered(shard, run.settings)
        if data is None or loaded_key != _data_key(run):
            data, loaded_key = load([run.settings], [shard], device), _data_key(run)
        yield LoadedRun(run, shard, data, method_of(run.settings).load(run, data, device))


def shard_of(run: Run) -> Shard:
    """The shard that a finished run was trained on.

    It is known by its digest, and found wherever the run's workspace now lies (`pipeline.shards.finding`). The run's
    answers are in it.

    Raises:
        DataError: the run is not done, or its shard is missing, damaged or not the one it was trained on.
    """
    return answered(Shard.open(shard_path(run)), run.settings)


def shard_path(run: Run) -> Path:
    """Where the shard lies that a finished run was trained on.

    Raises:
        DataError: the run is not done, or its shard is in none of the places where it can be.
    """
    provenance = run.provenance()
    if not isinstance(provenance.get("shard"), str):
        raise DataError(f"{run.folder / PROVENANCE} does not say which shard the run was trained on")
    return locate_shard(run.settings.digest, Path(provenance["shard"]), run.folder, run.places)


def _data_key(run: Run) -> str:
    """A key that is equal for runs that see the same examples."""
    settings = run.settings
    selection = (
        settings.modalities, settings.labels, settings.answers, settings.held_out, settings.seed,
        settings.learns_labels, settings.window,
    )  # fmt: skip
    return f"{settings.data} {settings.digest} {selection}"
