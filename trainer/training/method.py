"""How models are trained and loaded: one protocol for the training loop and for every other way to learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.runtime.errors import DataError
from trainer.data.interface import Data
from trainer.evaluation.evaluate import evaluate, evaluating, predictions
from trainer.evaluation.metrics import Evaluation
from trainer.models.interface import Model
from trainer.models.registry import card
from trainer.nn.rng import Noise
from trainer.settings.run_settings import Settings
from trainer.training.loop import train
from trainer.training.progress import Progress
from trainer.training.run_folder import Run
from trainer.training.step import make_model, precision

Predictions = tuple[NDArray[np.float32], NDArray[np.int64]]  # log-probabilities [N, K] and labels [N] of a test set


class TrainingResult(NamedTuple):
    """What training one run came to.

    Attributes:
        provenance: what the run's `provenance.json` is to say of the training itself.
    """

    weights: dict[str, Tensor]
    evaluation: Evaluation
    provenance: Mapping[str, Any]


class TrainedModel(Protocol):
    """A finished run's model, with the data that it saw."""

    def evaluate(self, *, iterations: int | None = None, samples: int | None = None) -> Evaluation:
        """The scores on the test set; the run's own settings where None."""
        ...

    def predictions(self, given: Sequence[str]) -> Predictions:
        """Predictions over the test set from some modalities; the others by the model's first completion."""
        ...


class Method(Protocol):
    """A way to train models.

    Attributes:
        stacks: whether several replicas can be trained in one pass.
    """

    stacks: bool

    def check(self, settings: Settings, data: Data) -> None:
        """
        Raises:
            UsageError: the method cannot learn from this data.
        """
        ...

    def train(self, runs: Sequence[Run], data: Data, device: torch.device, progress: Progress) -> list[TrainingResult]:
        """Trains runs from their checkpoints to the end.

        Raises:
            Interrupted: someone asked to stop; what was done is saved.
            TrainingError: training cannot go on.
        """
        ...

    def load(self, run: Run, data: Data, device: torch.device) -> TrainedModel:
        """A finished run's model.

        Raises:
            DataError: the weights are damaged, or do not fit the settings.
        """
        ...


@dataclass(frozen=True)
class GenerativeModel:
    """A finished run of a model that the training loop trained, as a stack of one."""

    settings: Settings
    data: Data
    model: nn.Module
    noise: Noise

    def evaluate(self, *, iterations: int | None = None, samples: int | None = None) -> Evaluation:
        """The scores on the test set; the run's own settings where None."""
        with precision(self.settings, self.data.label.device):
            (result,) = evaluate(
                self.model,
                self.noise,
                self.data,
                iterations=iterations or self.settings.iterations,
                samples=self.settings.samples if samples is None else samples,
                bound=self.settings.objective == "bound",
            )
        return result

    def predictions(self, given: Sequence[str]) -> Predictions:
        """Predictions over the test set from some modalities; the others by the model's first completion."""
        settings = self.settings
        with precision(settings, self.data.label.device), evaluating(self.model, self.noise):
            (found,) = predictions(
                self.model,
                self.noise,
                self.data,
                given,
                self.completion(given),
                iterations=settings.iterations,
                samples=settings.samples,
            )
        return found

    def completion(self, given: Sequence[str]) -> str:
        """What stands in for the modalities that are not given: the model's first completion, or none."""
        return "none" if len(given) == len(self.data.modalities) else cast(Model, self.model).completions[0]


class TrainingLoop:
    """Gradient steps on the semi-supervised objective: how every generative model learns."""

    stacks = True

    def check(self, settings: Settings, data: Data) -> None:
        """Any data will do; a model that needs less says so when it is built."""

    def train(self, runs: Sequence[Run], data: Data, device: torch.device, progress: Progress) -> list[TrainingResult]:
        """Trains a stack, and evaluates it with its averaged weights."""
        step = train(runs, data, device, progress)
        settings = runs[0].settings
        with precision(settings, device), step.average.applied():
            results = evaluate(
                step.model,
                step.noise,
                data,
                iterations=settings.iterations,
                samples=settings.samples,
                bound=settings.objective == "bound",
            )
            weights = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
        facts = {"stacked with": len(runs) - 1, "steps an epoch": step.batches.per_epoch}
        return [
            TrainingResult({name: tensor[r] for name, tensor in weights.items()}, result, facts)
            for r, result in enumerate(results)
        ]

    def load(self, run: Run, data: Data, device: torch.device) -> GenerativeModel:
        """A finished run's model."""
        model, noise = make_model([run.settings], data, device)
        weights = {name: tensor.unsqueeze(0) for name, tensor in run.read_weights().items()}
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(
                f"the weights in {run.folder} do not fit its settings: {str(error).splitlines()[0]}"
            ) from None
        return GenerativeModel(run.settings, data, model, noise)


_LOOP = TrainingLoop()


def method_of(settings: Settings) -> Method:
    """How the model of these settings is trained."""
    return cast(Method, card(settings.model).method or _LOOP)
