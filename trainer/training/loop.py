"""The training loop: one step, taken again and again, for a stack of replicas."""

import time
from collections.abc import Sequence
from contextlib import closing

import torch

from pipeline.runtime.errors import Interrupted
from pipeline.runtime.interrupts import stop_requests
from trainer.data.interface import Data
from trainer.data.machine_memory import keep_freed_memory
from trainer.evaluation.evaluate import evaluate
from trainer.training.checkpoints import restore, save
from trainer.training.progress import Progress, Silent
from trainer.training.run_folder import Run
from trainer.training.step import Step, precision

CHECKPOINT_SECONDS = 60


def train(runs: Sequence[Run], data: Data, device: torch.device, progress: Progress | None = None) -> Step:
    """Trains a stack of replicas to its last epoch, from its checkpoints where there are some.

    Args:
        runs: settings that differ only in what can be stacked, all equally far.
        data: one set of examples a run.

    Returns:
        The last step taken, which holds the trained stack, in the order of the runs.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; checkpoints are written, the same call goes on from there.
        TrainingError: a term of the objective is not finite.
    """
    progress = progress or Silent()
    keep_freed_memory()
    settings = runs[0].settings
    step = Step([run.settings for run in runs], data, device)
    done, rows = restore(runs, step)
    per_epoch = step.batches.per_epoch
    total = per_epoch * settings.epochs
    saved = time.monotonic()
    with closing(data), stop_requests() as stop, precision(settings, device):
        while done < total:
            step(done)
            done += 1
            epoch_ends = done % per_epoch == 0
            if epoch_ends or device.type == "cpu":  # elsewhere reading the result back would hold up the device
                step.terms.raise_if_not_finite(runs)
            try:
                progress.step(done, total)
            except Interrupted:  # in a thread no signal comes, so who watches is asked
                stop.name = "request"
            if epoch_ends:
                record(runs, rows, step, data, done // per_epoch)
                progress.epoch(done // per_epoch, settings.epochs, summary(rows))
            if stop.requested or done == total or (epoch_ends and time.monotonic() - saved > CHECKPOINT_SECONDS):
                save(runs, step, done)
                saved = time.monotonic()
            if stop.requested and done < total:
                raise Interrupted(
                    f"stopped by {stop.name} after {done} of {total} steps; all of it is saved",
                    "the same command goes on from there",
                )
    return step


def record(runs: Sequence[Run], rows: list[list[dict[str, object]]], step: Step, data: Data, epoch: int) -> None:
    """Adds an epoch's line to every run's metrics: the means of the terms, and the accuracies on the test set."""
    step.raise_if_weights_not_finite(runs)
    means = (step.terms.totals / step.batches.per_epoch).tolist()
    step.terms.totals.zero_()
    settings = step.settings
    with step.average.applied():
        evaluations = evaluate(
            step.model, step.noise, data, iterations=settings.iterations, samples=0, bound=False, fast=True
        )
    for r, (run, own) in enumerate(zip(runs, rows, strict=True)):
        line: dict[str, object] = {"epoch": epoch}
        line |= {name: f"{mean[r]:.6g}" for name, mean in zip(step.terms.names, means, strict=True)}
        line |= {f"accuracy {score.given}": f"{score.accuracy:.6f}" for score in evaluations[r].scores}
        own.append(line)
        run.write_metrics(own)


def summary(rows: list[list[dict[str, object]]]) -> str:
    """The last epoch in one line: means over the replicas of J and of the accuracies."""
    last = [own[-1] for own in rows]
    shown = [key for key in last[0] if key == "J" or key.startswith("accuracy ")]
    means = {key: sum(float(str(line[key])) for line in last) / len(last) for key in shown}
    return ", ".join(
        f"J {value:.1f}" if key == "J" else f"{key.removeprefix('accuracy ')} {100 * value:.2f} %"
        for key, value in means.items()
    )
