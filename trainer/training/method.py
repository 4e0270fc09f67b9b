"""How models are trained and loaded: one protocol for the training loop and for all other training methods."""

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
from trainer.training.precision import precision
from trainer.training.progress import Progress
from trainer.training.run_folder import Run
from trainer.training.step import make_model

Predictions = tuple[NDArray[np.float32], NDArray[np.int64]]  # log-probabilities [N, K] and labels [N] of a test set


class TrainingResult(NamedTuple):
    """The result of training one run.

    Attributes:
        weights: the tensors to keep in `weights.safetensors`.
        evaluation: the scores on the test set.
        provenance: facts about the training itself for the run's `provenance.json`.
    """

    weights: dict[str, Tensor]
    evaluation: Evaluation
    provenance: Mapping[str, Any]


class TrainedModel(Protocol):
    """The model of a finished run, together with its data."""

    def evaluate(self, *, iterations: int | None = None, samples: int | None = None) -> Evaluation:
        """The scores on the test set; an argument that is None takes the value of the run's settings."""
        ...

    def predictions(self, given: Sequence[str]) -> Predictions:
        """Predictions on the test set, given some modalities; the model's first completion fills in the others."""
        ...


class Method(Protocol):
    """A way to train models.

    Attributes:
        stacks: whether several replicas can be trained as one stack.
    """

    stacks: bool

    def check(self, settings: Settings, data: Data) -> None:
        """Checks that the method can learn from this data.

        Raises:
            UsageError: it cannot.
        """
        ...

    def train(self, runs: Sequence[Run], data: Data, device: torch.device, progress: Progress) -> list[TrainingResult]:
        """Trains runs to the end, starting from their checkpoints if there are any.

        Raises:
            Interrupted: a stop was requested; progress is saved.
            TrainingError: training cannot continue.
        """
        ...

    def load(self, run: Run, data: Data, device: torch.device) -> TrainedModel:
        """Loads the model of a finished run.

        Raises:
            DataError: the weights are damaged, or do not fit the settings.
        """
        ...


@dataclass(frozen=True)
class GenerativeModel:
    """The model of a finished run of the training loop, as a stack of one."""

    settings: Settings
    data: Data
    model: nn.Module
    noise: Noise

    def evaluate(self, *, iterations: int | None = None, samples: int | None = None) -> Evaluation:
        """The scores on the test set; an argument that is None takes the value of the run's settings."""
        with precision(self.settings, self.data.label.device):
            (result,) = evaluate(
                self.model,
                self.noise,
                self.data,
                iterations=self.settings.iterations if iterations is None else iterations,
                samples=self.settings.samples if samples is None else samples,
                bound=self.settings.objective == "bound",
            )
        return result

    def predictions(self, given: Sequence[str]) -> Predictions:
        """Predictions on the test set, given some modalities; the model's first completion fills in the others."""
        settings = self.settings
        with precision(settings, self.data.label.device), evaluating(self.model, self.noise):
            (result,) = predictions(
                self.model,
                self.noise,
                self.data,
                given,
                self.completion(given),
                iterations=settings.iterations,
                samples=settings.samples,
            )
        return result

    def completion(self, given: Sequence[str]) -> str:
        """How the modalities that are not given are completed: the model's first completion, or none."""
        return "none" if len(given) == len(self.data.modalities) else cast(Model, self.model).completions[0]


class TrainingLoop:
    """Gradient steps on the semi-supervised objective, the method of all generative models."""

    stacks = True

    def check(self, settings: Settings, data: Data) -> None:
        """Accepts any data; a model that does not support it raises when it is built."""

    def train(self, runs: Sequence[Run], data: Data, device: torch.device, progress: Progress) -> list[TrainingResult]:
        """Trains a stack and evaluates it, with averaged weights if there is an average."""
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
        """Loads the model of a finished run."""
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
    """The method by which the model of these settings is trained."""
    return cast(Method, card(settings.model).method or _LOOP)
