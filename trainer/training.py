"""The training loop: one step, taken again and again, for a stack of replicas."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from pipeline.errors import DataError, Interrupted, TrainingError, UsageError
from pipeline.interrupts import stop_requests
from trainer.data import Data, Stream
from trainer.evaluation import evaluate
from trainer.factory import Factory
from trainer.labels import LabelRule
from trainer.models import MODELS, Model
from trainer.networks import frozen_statistics
from trainer.noise import Noise
from trainer.objectives import Objective, objective
from trainer.runs import Checkpoint, Run
from trainer.settings import Settings

CHECKPOINT_SECONDS = 60
LOWER_RATE = "a smaller --lr often helps; delete the run's folder to begin again"
_log = logging.getLogger(__name__)


class Progress(Protocol):
    """Who watches the training."""

    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...


class Silent:
    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...


def train(runs: Sequence[Run], data: Data, device: torch.device, progress: Progress | None = None) -> "Step":
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
    settings = runs[0].settings
    step = Step([run.settings for run in runs], data, device)
    done, rows = restore(runs, step)
    per_epoch, total = step.per_epoch, step.per_epoch * settings.epochs
    saved = time.monotonic()
    with stop_requests() as stop, precision(settings, device):
        step.prepare()
        while done < total:
            step(done)
            done += 1
            epoch_ends = done % per_epoch == 0
            if epoch_ends or device.type == "cpu":  # elsewhere reading the result back would hold up the device
                step.raise_if_not_finite(runs)
            progress.step(done, total)
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


class Step:
    """One optimisation step of a stack: batches in, one Adam update out, the objective's terms added to `totals`.

    On CUDA the whole of it is captured once as a graph and replayed; `eager` is the plain path, which gives the same.
    """

    def __init__(self, stack: Sequence[Settings], data: Data, device: torch.device, eager: bool = False) -> None:
        first = stack[0]
        self.settings, self.data, self.device = first, data, device
        self.captures = device.type == "cuda" and not eager
        self.model, self.noise = make_model(stack, data, device)
        rate = torch.tensor(first.learning_rate, device=device) if self.captures else first.learning_rate
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, fused=True, capturable=self.captures)
        self.alpha = torch.tensor([s.alpha for s in stack], device=device)
        self.beta = torch.tensor([s.beta for s in stack], device=device)
        self.labelled_share = data.labelled_share
        labelled_batch = first.labelled_batch_size if len(data.examples[0].unlabelled) else first.batch_size
        self.unlabelled = [
            Stream(own.unlabelled, first.batch_size, s.seed, "unlabelled")
            for s, own in zip(stack, data.examples, strict=True)
            if len(own.unlabelled)
        ]
        self.labelled = [
            Stream(own.labelled, labelled_batch, s.seed, "labelled")
            for s, own in zip(stack, data.examples, strict=True)
            if first.learns_labels
        ]
        paced = self.unlabelled or self.labelled
        self.per_epoch = max(math.ceil(len(stream.rows) / stream.batch_size) for stream in paced)
        self.index_l, self.index_u = (
            torch.zeros(len(streams), streams[0].batch_size, dtype=torch.int64, device=device) if streams else None
            for streams in (self.labelled, self.unlabelled)
        )
        self.names = self._term_names()
        self.totals = torch.zeros(len(self.names), len(stack), dtype=torch.float64, device=device)
        self.finite = torch.ones(len(self.names), len(stack), dtype=torch.bool, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, number: int) -> None:
        """Takes step `number` (from 0)."""
        self.load_batches(number)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._update()

    def load_batches(self, number: int) -> None:
        for index, streams in ((self.index_l, self.labelled), (self.index_u, self.unlabelled)):
            if index is not None:
                index.copy_(torch.stack([torch.from_numpy(stream.batch(number)) for stream in streams]))

    def objective(self) -> Objective:
        """J of the batches at hand: the labelled and the unlabelled pass are separate (docs/deviations.md, 4)."""
        data, model = self.data, cast(Model, self.model)
        labelled = unlabelled = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            if self.index_l is not None:
                with frozen_statistics(self.model) if self.index_u is not None else nullcontext():
                    labelled = model.bound(data.x(self.index_l), data.y(self.index_l))
            if self.index_u is not None:
                unlabelled = model.bound(data.x(self.index_u))
        return objective(labelled, unlabelled, alpha=self.alpha, beta=self.beta, labelled_share=self.labelled_share)

    def _update(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        result = self.objective()
        result.loss.backward()
        self.optimizer.step()
        terms = torch.stack(list(result.terms.values())).detach()  # [T, R]
        self.totals += terms
        self.finite &= terms.isfinite()

    def prepare(self) -> None:
        """Captures the step as a CUDA graph; does nothing elsewhere. Leaves every state as it was."""
        if not self.captures or self._graph is not None:
            return
        kept = [tensor.clone() for tensor in self._state()]
        noise = [self.noise.state(r) for r in range(self.noise.replicas)]
        fresh = not self.optimizer.state
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._update()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        for generator in self.noise.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._update()
        state = self._state()
        with torch.no_grad():
            for tensor, value in zip(state, kept, strict=False):  # Adam's own come last, and are new where it is fresh
                tensor.copy_(value)
            if fresh:
                for tensor in state[len(kept) :]:
                    tensor.zero_()
        for r, own in enumerate(noise):
            self.noise.set_state(r, own)
        self._graph = graph

    def _state(self) -> list[Tensor]:
        """Every tensor that a step changes, Adam's last."""
        adam = [tensor for own in self.optimizer.state.values() for tensor in own.values()]
        return [*self.model.state_dict().values(), self.totals, self.finite, *adam]

    def _term_names(self) -> list[str]:
        """The names of the objective's terms, from one pass that leaves no trace."""
        self.load_batches(0)
        with torch.no_grad(), frozen_statistics(self.model), self.noise.apart("names"):
            return list(self.objective().terms)

    def raise_if_not_finite(self, runs: Sequence[Run]) -> None:
        """
        Raises:
            TrainingError: a term was not finite since the last look; it names the terms and the replicas.
        """
        if bool(self.finite.all()):
            return
        bad = [
            f"'{name}' of seed {run.settings.seed}"
            for name, row in zip(self.names, self.finite.tolist(), strict=True)
            for run, finite in zip(runs, row, strict=True)
            if not finite
        ]
        raise TrainingError(
            f"training stopped: not finite: {', '.join(bad[:8])}{' ...' * (len(bad) > 8)}",
            LOWER_RATE,
        )

    def raise_if_weights_not_finite(self, runs: Sequence[Run]) -> None:
        """What the last step made of the weights, before they are measured or saved.

        Raises:
            TrainingError: one of them is not finite; it names one and its replica.
        """
        for name, tensor in self.model.state_dict().items():
            finite = tensor.isfinite().flatten(1).all(1).tolist()
            if not all(finite):
                seed = runs[finite.index(False)].settings.seed
                raise TrainingError(f"training stopped: not finite: the weights '{name}' of seed {seed}", LOWER_RATE)


def make_model(stack: Sequence[Settings], data: Data, device: torch.device) -> tuple[nn.Module, Noise]:
    """A stack of fresh replicas, each from its own seed, and their noise."""
    first = stack[0]
    noise = Noise([settings.seed for settings in stack], device)
    rule = LabelRule(first.label, first.temperature)
    model = MODELS[first.model](Factory(first.networks, data.modalities, len(data.classes), noise, rule))
    return model.to(device).train(), noise


@contextmanager
def precision(settings: Settings, device: torch.device) -> Iterator[None]:
    """Float32 matrix products as the settings ask: TF32 exists on CUDA alone."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" and device.type == "cuda" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def record(runs: Sequence[Run], rows: list[list[dict[str, object]]], step: Step, data: Data, epoch: int) -> None:
    """Adds an epoch's line to every run's metrics: the means of the terms, and the accuracies on the test set."""
    step.raise_if_weights_not_finite(runs)
    means = (step.totals / step.per_epoch).tolist()
    step.totals.zero_()
    settings = step.settings
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
    """Writes every replica's checkpoint: model, Adam, noise and the epoch's running sums, at this instant.

    Raises:
        TrainingError: a term of the objective or a weight is not finite; no checkpoint is replaced.
    """
    step.raise_if_not_finite(runs)
    names = dict(step.model.named_parameters())
    adam = step.optimizer.state
    step.raise_if_weights_not_finite(runs)
    for r, run in enumerate(runs):
        tensors = {f"model.{name}": tensor[r] for name, tensor in step.model.state_dict().items()}
        for name, parameter in names.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"adam.{moment}.{name}"] = adam[parameter][moment][r]
        tensors["noise"] = step.noise.state(r)
        tensors["totals"] = step.totals[:, r]
        values = {"step": done, "per_epoch": step.per_epoch, "terms": step.names, "device": step.device.type}
        run.write_checkpoint(Checkpoint(tensors, values))


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
        for name, parameter in step.model.named_parameters():
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
