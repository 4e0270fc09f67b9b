"""The training loop: one step, taken again and again, for a stack of replicas."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Protocol

import torch
from torch import Tensor

from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.runtime.interrupts import stop_requests
from trainer.data.machine_memory import keep_freed_memory
from trainer.data.resident import Data
from trainer.evaluation.evaluate import evaluate
from trainer.training.run_folder import CHECKPOINT, PROPOSED, Checkpoint, Run
from trainer.training.step import Step, precision

CHECKPOINT_SECONDS = 60


class Progress(Protocol):
    """Who watches the training. One that raises Interrupted in `step` asks it to save itself and stop."""

    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...


class Silent:
    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...


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
    per_epoch, total = step.per_epoch, step.per_epoch * settings.epochs
    saved = time.monotonic()
    with closing(data), stop_requests() as stop, precision(settings, device):
        while done < total:
            step(done)
            done += 1
            epoch_ends = done % per_epoch == 0
            if epoch_ends or device.type == "cpu":  # elsewhere reading the result back would hold up the device
                step.raise_if_not_finite(runs)
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
    means = (step.totals / step.per_epoch).tolist()
    step.totals.zero_()
    settings = step.settings
    with step.averaged():
        evaluations = evaluate(
            step.model, step.noise, data, iterations=settings.iterations, samples=0, bound=False, fast=True
        )
    for r, (run, own) in enumerate(zip(runs, rows, strict=True)):
        line: dict[str, object] = {"epoch": epoch}
        line |= {name: f"{mean[r]:.6g}" for name, mean in zip(step.names, means, strict=True)}
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


def save(runs: Sequence[Run], step: Step, done: int) -> None:
    """Writes every replica's checkpoint: model, Adam, average, noise and the epoch's running sums, at this instant.

    A stack's replace the ones before when all of them are written.

    Raises:
        TrainingError: a term of the objective or a weight is not finite; no checkpoint is replaced.
    """
    step.raise_if_not_finite(runs)
    names = dict(step.model.named_parameters())
    adam = step.optimizer.state
    step.raise_if_weights_not_finite(runs)
    stack = [run.settings.fingerprint() for run in runs]
    for r, run in enumerate(runs):
        tensors = {f"model.{name}": tensor[r] for name, tensor in step.model.state_dict().items()}
        for name, parameter in names.items():
            if parameter not in adam:  # no part of a classifier that is trained alone
                continue
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"adam.{moment}.{name}"] = adam[parameter][moment][r]
        tensors |= {f"average.{name}": tensor[r] for name, tensor in step.average.items()}
        tensors["noise"] = step.noise.state(r)
        tensors["totals"] = step.totals[:, r]
        values = {"step": done, "per_epoch": step.per_epoch, "terms": step.names, "device": step.device.type}
        run.write_checkpoint(Checkpoint(tensors, values | {"stack": stack}), PROPOSED if len(runs) > 1 else CHECKPOINT)
    if len(runs) > 1:
        for run in runs:
            run.accept_checkpoint()


def restore(runs: Sequence[Run], step: Step) -> tuple[int, list[list[dict[str, object]]]]:
    """Puts every replica's checkpoint back, where there is one; returns the steps done and the metrics so far."""
    checkpoints = [run.read_checkpoint() for run in runs]
    if all(checkpoint is None for checkpoint in checkpoints):
        return 0, [[] for _ in runs]
    loaded = [checkpoint for checkpoint in checkpoints if checkpoint is not None]
    for run, checkpoint in zip(runs, loaded, strict=False):
        begun_on = checkpoint.values["device"]
        if begun_on != step.device.type:
            raise UsageError(
                f"{run.folder} was begun on {begun_on}, whose noise cannot go on on {step.device.type}",
                f"go on with --device {begun_on}, or delete the folder to begin again",
            )
    done = {(int(checkpoint.values["step"]), int(checkpoint.values["per_epoch"])) for checkpoint in loaded}
    assert len(loaded) == len(runs), "either every replica of a stack has begun, or none"
    assert len(done) == 1, "a stack's replicas are equally far"
    steps, step.per_epoch = done.pop()  # an epoch goes on as it began, whoever was in the stack then

    def stacked(name: str) -> Tensor:
        return torch.stack([checkpoint.tensors[name] for checkpoint in loaded]).to(step.device)

    with torch.no_grad():
        for name, tensor in step.model.state_dict().items():
            tensor.copy_(stacked(f"model.{name}"))
        for name, tensor in step.average.items():
            tensor.copy_(stacked(f"average.{name}"))
        for name, parameter in step.model.named_parameters():
            if f"adam.exp_avg.{name}" not in loaded[0].tensors:
                continue
            step.optimizer.state[parameter] = {
                "step": torch.tensor(float(steps), device=step.device if step.captures else None),
                "exp_avg": stacked(f"adam.exp_avg.{name}"),
                "exp_avg_sq": stacked(f"adam.exp_avg_sq.{name}"),
            }
        step.totals.copy_(stacked("totals").T)
    for r, checkpoint in enumerate(loaded):
        step.noise.set_state(r, checkpoint.tensors["noise"])
    epochs = steps // step.per_epoch
    rows: list[list[dict[str, object]]] = [[dict(row) for row in run.metrics()[:epochs]] for run in runs]
    for run, own in zip(runs, rows, strict=True):
        if len(own) < epochs:
            raise DataError(f"{run.folder} has lost the metrics of some epochs", "delete the folder to begin again")
    return steps, rows
