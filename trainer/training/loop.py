"""The training loop of a stack of replicas."""

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial

import torch

from pipeline.runtime.errors import Interrupted
from pipeline.runtime.interrupts import Stop, stop_requests
from trainer.data.interface import Data
from trainer.data.machine_memory import prepare_memory
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.subsets import every_modality, subset_title
from trainer.training.checkpoints import restore, save
from trainer.training.precision import precision
from trainer.training.progress import Progress, Silent
from trainer.training.run_folder import Run
from trainer.training.step import Step

CHECKPOINT_SECONDS = 60  # minimum time between two checkpoints


def train(runs: Sequence[Run], data: Data, device: torch.device, progress: Progress | None = None) -> Step:
    """Trains a stack of replicas to its last epoch, starting from its checkpoints if there are any.

    Args:
        runs: runs that can share a stack and are at the same step.
        data: the data of the runs, with one set of examples per run.

    Returns:
        The step, which holds the trained stack in the order of the runs.

    Raises:
        Interrupted: SIGTERM or Ctrl-C was received; checkpoints are written, and the same call resumes from them.
        TrainingError: a term of the objective or a weight is not finite.
    """
    progress = progress or Silent()
    prepare_memory()
    settings = runs[0].settings
    with closing(data), stop_requests() as stop, precision(settings, device):
        step = Step([run.settings for run in runs], data, device, check=partial(_stop_early, stop))
        done, rows = restore(runs, step)
        per_epoch = step.batches.per_epoch
        total = per_epoch * settings.epochs
        saved = time.monotonic()
        while done < total:
            step(done)
            done += 1
            epoch_ends = done % per_epoch == 0
            if epoch_ends or device.type == "cpu":  # on a GPU, reading the result would stall the device
                step.terms.raise_if_not_finite(runs)
            try:
                progress.step(done, total)
            except Interrupted:  # signals do not reach threads, so the observer stops them
                stop.name = "request"
            if epoch_ends:
                record(runs, rows, step, data, done // per_epoch)
                progress.epoch(done // per_epoch, settings.epochs, summary(rows))
            if stop.requested or done == total or (epoch_ends and time.monotonic() - saved > CHECKPOINT_SECONDS):
                save(runs, step, done)
                saved = time.monotonic()
            if stop.requested and done < total:
                raise Interrupted(
                    f"stopped by {stop.name} after {done} of {total} steps; progress is saved",
                    "run the same command again to resume",
                )
    return step


def _stop_early(stop: Stop) -> None:
    if stop.requested:
        raise Interrupted(f"stopped by {stop.name} before the first step", "run the same command again")


def record(runs: Sequence[Run], rows: list[list[dict[str, object]]], step: Step, data: Data, epoch: int) -> None:
    """Adds an epoch's row to every run's metrics: the mean of each term, and the accuracies on the test set."""
    step.raise_if_weights_not_finite(runs)
    means = (step.terms.totals / step.batches.per_epoch).tolist()
    step.terms.totals.zero_()
    settings = step.settings
    with step.average.applied():
        evaluations = evaluate(
            step.model, step.noise, data, iterations=settings.iterations, samples=0, bound=False, fast=True
        )
    for r, (run, history) in enumerate(zip(runs, rows, strict=True)):
        row: dict[str, object] = {"epoch": epoch}
        row |= {name: f"{mean[r]:.6g}" for name, mean in zip(step.terms.names, means, strict=True)}
        row |= {f"accuracy {score.given}": f"{score.accuracy:.6f}" for score in evaluations[r].scores}
        history.append(row)
        run.write_metrics(history)


def summary(rows: list[list[dict[str, object]]]) -> str:
    """The last epoch in one line: J and the accuracies, averaged over the replicas that have them."""
    last = [history[-1] for history in rows]
    shown = dict.fromkeys(key for row in last for key in row if key == "J" or key.startswith("accuracy "))
    means = {
        key.removeprefix("accuracy "): statistics.fmean(float(str(row[key])) for row in last if key in row)
        for key in shown
    }
    every = every_modality(given for given in means if given != "J")
    return ", ".join(
        f"J {value:.1f}" if name == "J" else f"{subset_title(name, every)} {100 * value:.2f} %"
        for name, value in means.items()
    )
