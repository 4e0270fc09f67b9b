"""One optimisation step of a stack of replicas, captured as a CUDA graph on a GPU."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import TrainingError, UsageError
from trainer.data.interface import Data
from trainer.data.neighbour_graph import Check
from trainer.data.propagation import propagated_labels
from trainer.data.selection import labelled_share
from trainer.models.factory import Factory
from trainer.models.interface import Classifier, Model
from trainer.models.registry import card
from trainer.nn.batch_norm import frozen_statistics, fuse
from trainer.nn.labels import LabelPrior, LabelRule
from trainer.nn.rng import Noise
from trainer.nn.segments import in_segments, segments_of
from trainer.objective.regularisers import label_terms, penalties
from trainer.objective.semisupervised import Objective, classifier_alone, objective
from trainer.objective.views import Views
from trainer.settings.run_settings import Settings
from trainer.training.average import RunningAverage
from trainer.training.batches import Batches
from trainer.training.cuda_graph import capture
from trainer.training.precision import autocast
from trainer.training.run_folder import Run
from trainer.training.schedule import Schedule
from trainer.training.terms import LOWER_RATE, ExtraTerms, TermTotals


class Step:
    """One optimisation step of a stack: reads batches, makes one Adam update, and adds the terms of J to the totals.

    On CUDA the whole step is captured as a graph and replayed, unless `eager` is set; both give the same result.

    Args:
        check: is called now and then while labels are propagated, which may take minutes, and may raise.
    """

    def __init__(
        self,
        stack: Sequence[Settings],
        data: Data,
        device: torch.device,
        eager: bool = False,
        check: Check = lambda: None,
    ) -> None:
        self.settings, self.data, self.device = stack[0], data, device
        self.captures = device.type == "cuda" and not eager
        self.model, self.noise = make_model(stack, data, device)
        if self.settings.fused:
            _fuse(self.model, device)
        self.rate = torch.tensor(self.settings.learning_rate, device=device)  # read by the captured graph
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=self.rate if self.captures else self.settings.learning_rate,
            fused=True,
            capturable=self.captures,
        )
        self.alpha = torch.tensor([settings.alpha for settings in stack], device=device)
        self.beta = torch.tensor([settings.beta for settings in stack], device=device)
        self.labelled_share = labelled_share(data.examples).to(device)
        self.average = RunningAverage(self.model, self.settings.averaging > 0, device)
        self.batches = Batches(stack, data)
        self._replicas = torch.arange(len(stack), device=device).unsqueeze(-1)
        self.soft_labels = self._propagated(check)
        self.extra_terms = ExtraTerms(len(stack), device)
        self.terms = TermTotals(self._term_names(), len(stack), device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, number: int) -> None:
        """Takes step `number`; steps count from 0."""
        self.batches.load(number)
        self.set_pace(number)
        if not self.captures:
            self._update()
            return
        if self._graph is None:
            self._graph = capture(self._update, self._state, self.optimizer, self.noise)
        self._graph.replay()

    def set_pace(self, number: int) -> None:
        """Sets a step's learning rate, its weight in the average, and whether it has the terms beyond the paper."""
        schedule = Schedule(self.settings, self.batches.per_epoch * self.settings.epochs)
        if schedule.onset and self.extra_terms.switch(schedule.terms_on(number)):
            self._graph = None  # the captured graph is no longer valid
        if self.captures:
            self.rate.fill_(schedule.learning_rate(number))
        else:
            self.optimizer.param_groups[0]["lr"] = schedule.learning_rate(number)
        self.average.weight.fill_(schedule.ema_weight(number))

    def objective(self) -> Objective:
        """J of the current batches, in one pass; each keeps its own statistics (docs/design/deviations.md, 4)."""
        data, batches = self.data, self.batches
        with autocast(self.settings, self.device):
            x = data.x(batches.index)
            y = None if batches.index_l is None else data.y(batches.index_l)
            with in_segments(segments_of(y, batches.index.shape[1])):
                bound = cast(Model, self.model).bound(x, y)
            labelled, unlabelled = bound.divided(y)
            if self.settings.objective == "classifier":
                assert labelled is not None, "a classifier alone needs labelled examples"
                return classifier_alone(labelled, beta=self.beta)
            with frozen_statistics():
                views, soft = Views(cast(Classifier, self.model), x, y, bound.posteriors), None
                if self.soft_labels is not None and batches.index_u is not None:
                    soft = self.soft_labels[self._replicas, data.training_rows(batches.index_u)]
                extra = label_terms(self.settings, views, soft)
                extra |= self.extra_terms(lambda: penalties(self.settings, self.noise, views))
        return objective(
            labelled,
            unlabelled,
            alpha=self.alpha,
            beta=self.beta,
            labelled_share=self.labelled_share,
            penalties=extra,
        )

    def _propagated(self, check: Check) -> Tensor | None:
        """The propagated labels of all training rows, `[R, N, K]`, if the settings ask for them."""
        if not self.settings.propagation or not self.batches.unlabelled:
            return None
        return propagated_labels(self.data, self.settings.neighbours, check)

    def _update(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        result = self.objective()
        result.loss.backward()
        self.optimizer.step()
        self.average.update()
        self.terms.add(result.terms)

    def _state(self) -> list[Tensor]:
        """Every tensor that a step changes, Adam's last."""
        adam = [tensor for moments in self.optimizer.state.values() for tensor in moments.values()]
        averages = self.average.tensors.values()
        return [*self.model.state_dict().values(), *averages, self.terms.totals, self.terms.finite, *adam]

    def _term_names(self) -> list[str]:
        """The names of the objective's terms, from one pass that changes no state."""
        with torch.no_grad(), frozen_statistics(), self.noise.separate_streams("names"):
            return list(self.objective().terms)

    def raise_if_weights_not_finite(self, runs: Sequence[Run]) -> None:
        """Checks the weights after the last step, before they are evaluated or saved.

        Raises:
            TrainingError: a weight is not finite; the message names it and its replica.
        """
        state = self.model.state_dict()
        if torch.stack([tensor.sum() for tensor in state.values()]).sum().isfinite():
            return  # the sum is finite only if every weight is; looking at each takes three times as long
        for name, tensor in state.items():
            finite = tensor.isfinite().flatten(1).all(1).tolist()
            if not all(finite):
                seed = runs[finite.index(False)].settings.seed
                raise TrainingError(f"training stopped: not finite: the weights '{name}' of seed {seed}", LOWER_RATE)


def make_model(stack: Sequence[Settings], data: Data, device: torch.device) -> tuple[nn.Module, Noise]:
    """A stack of new replicas, each initialised from its own seed, and their noise."""
    first = stack[0]
    noise = Noise([settings.seed for settings in stack], device)
    rule = LabelRule(first.label_estimator, first.temperature)
    factory = Factory(
        first.networks,
        data.modalities,
        len(data.classes),
        noise,
        rule,
        label_prior(stack, data, device),
        first.pooling,
        first.joint_encoder,
    )
    model: nn.Module = card(first.model).build(factory)
    return model.to(device).train(), noise


def _fuse(model: nn.Module, device: torch.device) -> None:
    """Has a model's batch normalisations and ReLUs done in one kernel.

    Raises:
        UsageError: the device is no CUDA device, or Triton is not installed.
    """
    if device.type != "cuda":
        raise UsageError(f"fused=true is for CUDA, and this run is on {device.type}", "leave it out, or --device cuda")
    try:
        fuse(model)
    except ImportError as error:
        raise UsageError(f"fused=true needs Triton ({error})", "pip install triton, or leave it out") from None


def label_prior(stack: Sequence[Settings], data: Data, device: torch.device) -> LabelPrior:
    """p(y) of each replica, as the settings say.

    Raises:
        UsageError: there is not one probability per class, or they do not sum to 1.
    """
    prior = stack[0].prior
    stack[0].check_classes(len(data.classes))
    if prior == "uniform":
        return LabelPrior()
    if prior == "labelled":
        counts = torch.tensor([examples.per_class for examples in data.examples], dtype=torch.float64) + 1
        return LabelPrior((counts / counts.sum(-1, keepdim=True)).log().float().to(device))
    return LabelPrior(torch.tensor([prior] * len(stack), device=device).log())
