"""The checkpoints of a stack: everything needed to resume, captured at one instant."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.runtime.errors import DataError, UsageError
from trainer.training.run_folder import CHECKPOINT, PROPOSED, Checkpoint, Run
from trainer.training.step import Step


def save(runs: Sequence[Run], step: Step, done: int) -> None:
    """Writes every replica's checkpoint: the state of model, Adam, average and noise, and the epoch's sums so far.

    The checkpoints of a stack replace the previous ones only when all of them have been written.

    Raises:
        TrainingError: a term of the objective or a weight is not finite; no checkpoint is replaced.
    """
    step.terms.raise_if_not_finite(runs)
    names = dict(step.model.named_parameters())
    adam = step.optimizer.state
    step.raise_if_weights_not_finite(runs)
    stack = [run.settings.fingerprint() for run in runs]
    for r, run in enumerate(runs):
        tensors = {f"model.{name}": tensor[r] for name, tensor in step.model.state_dict().items()}
        for name, parameter in names.items():
            if parameter not in adam:  # not part of a classifier that is trained alone
                continue
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"adam.{moment}.{name}"] = adam[parameter][moment][r]
        tensors |= {f"average.{name}": tensor[r] for name, tensor in step.average.tensors.items()}
        tensors["noise"] = step.noise.state(r)
        tensors["totals"] = step.terms.totals[:, r]
        values = {
            "step": done,
            "per_epoch": step.batches.per_epoch,
            "terms": step.terms.names,
            "device": step.device.type,
        }
        run.write_checkpoint(Checkpoint(tensors, values | {"stack": stack}), PROPOSED if len(runs) > 1 else CHECKPOINT)
    if len(runs) > 1:
        for run in runs:
            run.accept_checkpoint()


def restore(runs: Sequence[Run], step: Step) -> tuple[int, list[list[dict[str, object]]]]:
    """Restores every replica's checkpoint, if there is one; returns the number of steps done and the metrics so far.

    Raises:
        DataError: a checkpoint or the metrics are damaged.
        UsageError: training was started on another kind of device.
    """
    checkpoints = [run.read_checkpoint() for run in runs]
    if all(checkpoint is None for checkpoint in checkpoints):
        return 0, [[] for _ in runs]
    loaded = [checkpoint for checkpoint in checkpoints if checkpoint is not None]
    for run, checkpoint in zip(runs, loaded, strict=False):
        started_on = checkpoint.values["device"]
        if started_on != step.device.type:
            raise UsageError(
                f"{run.folder} was started on {started_on}, whose random streams cannot continue on {step.device.type}",
                f"resume it with --device {started_on}, or delete the folder to start again",
            )
    done = {(int(checkpoint.values["step"]), int(checkpoint.values["per_epoch"])) for checkpoint in loaded}
    assert len(loaded) == len(runs), "either all replicas of a stack have a checkpoint, or none"
    assert len(done) == 1, "all replicas of a stack are at the same step"
    steps, step.batches.per_epoch = done.pop()  # an epoch keeps its length, even if the stack has changed

    def stacked(name: str) -> Tensor:
        return torch.stack([checkpoint.tensors[name] for checkpoint in loaded]).to(step.device)

    with torch.no_grad():
        for name, tensor in step.model.state_dict().items():
            tensor.copy_(stacked(f"model.{name}"))
        for name, tensor in step.average.tensors.items():
            tensor.copy_(stacked(f"average.{name}"))
        for name, parameter in step.model.named_parameters():
            if f"adam.exp_avg.{name}" not in loaded[0].tensors:
                continue
            step.optimizer.state[parameter] = {
                "step": torch.tensor(float(steps), device=step.device if step.captures else None),
                "exp_avg": stacked(f"adam.exp_avg.{name}"),
                "exp_avg_sq": stacked(f"adam.exp_avg_sq.{name}"),
            }
        step.terms.totals.copy_(stacked("totals").T)
    for r, checkpoint in enumerate(loaded):
        step.noise.set_state(r, checkpoint.tensors["noise"])
    epochs = steps // step.batches.per_epoch
    rows: list[list[dict[str, object]]] = [[dict(row) for row in run.metrics()[:epochs]] for run in runs]
    for run, history in zip(runs, rows, strict=True):
        if len(history) < epochs:
            raise DataError(f"{run.folder} has lost the metrics of some epochs", "delete the folder to start again")
    return steps, rows
