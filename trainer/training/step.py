"""One optimisation step of a stack of replicas, captured as a CUDA graph where there is a GPU."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import TrainingError
from trainer.data.resident import Data
from trainer.models import MODELS, Classifier, Model
from trainer.models.factory import Factory
from trainer.nn.labels import LabelRule
from trainer.nn.layers import frozen_statistics
from trainer.nn.rng import Noise
from trainer.objective.regularisers import Features, Penalty, penalties
from trainer.objective.semisupervised import Objective, classifier_alone, objective
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Run

LOWER_RATE = "a smaller --lr often helps; delete the run's folder to begin again"


class Step:
    """One optimisation step of a stack: batches in, one Adam update out, the objective's terms added to `totals`.

    On CUDA the whole of it is captured as a graph and replayed; `eager` is the plain path, which gives the same.
    """

    def __init__(self, stack: Sequence[Settings], data: Data, device: torch.device, eager: bool = False) -> None:
        first = stack[0]
        self.settings, self.data, self.device = first, data, device
        self.captures = device.type == "cuda" and not eager
        self.model, self.noise = make_model(stack, data, device)
        self.rate = torch.tensor(first.learning_rate, device=device)  # a tensor: a captured graph reads it anew
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=self.rate if self.captures else first.learning_rate,
            fused=True,
            capturable=self.captures,
        )
        self.average = {name: t.clone() for name, t in self.model.state_dict().items()} if first.averaging else {}
        self.share = torch.ones((), device=device)  # of a step's weights in the running average
        self.joined = torch.ones((), device=device)  # whether the terms beyond the paper count yet: 0 or 1
        self.extra: list[str] = []  # their names
        self.awaited: list[str] = []  # the same, while they need not be computed
        self.alpha = torch.tensor([s.alpha for s in stack], device=device)
        self.beta = torch.tensor([s.beta for s in stack], device=device)
        self.labelled_share = data.labelled_share
        labelled_batch = first.labelled_batch_size if len(data.examples[0].unlabelled) else first.batch_size
        seeds, has_unlabelled = [s.seed for s in stack], len(data.examples[0].unlabelled) > 0
        self.unlabelled = data.streams("unlabelled", seeds, first.batch_size) if has_unlabelled else []
        self.labelled = data.streams("labelled", seeds, labelled_batch) if first.learns_labels else []
        paced = self.unlabelled or self.labelled
        self.per_epoch = max(math.ceil(len(stream.rows) / stream.batch_size) for stream in paced)
        self.index_l, self.index_u = (
            data.first_index(streams) if streams else None for streams in (self.labelled, self.unlabelled)
        )
        self.names = self._term_names()
        self.totals = torch.zeros(len(self.names), len(stack), dtype=torch.float64, device=device)
        self.finite = torch.ones(len(self.names), len(stack), dtype=torch.bool, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, number: int) -> None:
        """Takes step `number` (from 0)."""
        self.load_batches(number)
        self.set_pace(number)
        if not self.captures:
            self._update()
            return
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()

    def load_batches(self, number: int) -> None:
        for index, streams in ((self.index_l, self.labelled), (self.index_u, self.unlabelled)):
            if index is not None:
                self.data.place(index, streams, number)

    def set_pace(self, number: int) -> None:
        """The learning rate of a step, what it weighs in the average, and whether the terms beyond the paper count.

        Rate and average begin anew at the onset: until then the rate is constant, and after it the average is soon rid
        of the weights that had not seen the terms.
        """
        settings, total = self.settings, self.per_epoch * self.settings.epochs
        onset = math.ceil(settings.onset * total)
        joined = number >= onset
        since = number - onset if joined else number
        if onset:
            self.joined.fill_(float(joined))
            awaited = [] if joined else self.extra
            if awaited != self.awaited:
                self.awaited, self._graph = awaited, None  # what is captured holds no longer
        if settings.schedule == "cosine":
            way = since / (total - onset) if joined else 0.0
            rate = settings.learning_rate * (1 + math.cos(math.pi * way)) / 2
            if self.captures:
                self.rate.fill_(rate)
            else:
                self.optimizer.param_groups[0]["lr"] = rate
        if self.average:
            self.share.fill_(1 - min(settings.averaging, (1 + since) / (10 + since)))  # soon rid of the first weights

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the model has the averaged weights, where there is an average: what is evaluated and kept."""
        own = self.model.state_dict()
        kept = {name: own[name].clone() for name in self.average}
        try:
            for name, tensor in self.average.items():
                own[name].copy_(tensor)
            yield
        finally:
            for name, tensor in kept.items():
                own[name].copy_(tensor)

    def objective(self) -> Objective:
        """J of the batches at hand: the labelled and the unlabelled pass are separate (docs/deviations.md, 4)."""
        data, model = self.data, cast(Model, self.model)
        labelled = unlabelled = x_l = y_l = x_u = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            if self.index_l is not None:
                x_l, y_l = data.x(self.index_l), data.y(self.index_l)
                with frozen_statistics(self.model) if self.index_u is not None else nullcontext():
                    labelled = model.bound(x_l, y_l)
            if self.index_u is not None:
                x_u = data.x(self.index_u)
                unlabelled = model.bound(x_u)
            if self.settings.objective == "classifier":
                assert labelled is not None, "there are labelled examples"
                return classifier_alone(labelled, beta=self.beta)
            with frozen_statistics(self.model):
                extra = self._penalties(x_l, y_l, x_u)
        return objective(
            labelled,
            unlabelled,
            alpha=self.alpha,
            beta=self.beta,
            labelled_share=self.labelled_share,
            penalties=extra,
        )

    def _penalties(self, x_l: Features | None, y_l: Tensor | None, x_u: Features | None) -> dict[str, Penalty]:
        """Those of `trainer.objective.regularisers`, with their weights; nothing of them before their onset."""
        if self.awaited:
            return {name: (self.joined, torch.zeros_like(self.alpha)) for name in self.awaited}
        found = penalties(self.settings, cast(Classifier, self.model), self.noise, x_l, y_l, x_u)
        self.extra = list(found)
        return {name: (weight * self.joined, value) for name, (weight, value) in found.items()}

    def _update(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        result = self.objective()
        result.loss.backward()
        self.optimizer.step()
        if self.average:
            for name, tensor in self.model.state_dict().items():
                self.average[name].lerp_(tensor, self.share)
        terms = torch.stack(list(result.terms.values())).detach()  # [T, R]
        self.totals += terms
        self.finite &= terms.isfinite()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """The step as a CUDA graph. Leaves every state as it was."""
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
        return graph

    def _state(self) -> list[Tensor]:
        """Every tensor that a step changes, Adam's last."""
        adam = [tensor for own in self.optimizer.state.values() for tensor in own.values()]
        return [*self.model.state_dict().values(), *self.average.values(), self.totals, self.finite, *adam]

    def _term_names(self) -> list[str]:
        """The names of the objective's terms, from one pass that leaves no trace."""
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
