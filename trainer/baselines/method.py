"""The training method of the co-trained systems, under the protocol that all models share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.runtime.errors import DataError
from trainer.baselines.cotraining import CoTrained, System, check_views, cotrain, evaluation
from trainer.data.interface import Data
from trainer.evaluation.metrics import Evaluation
from trainer.settings.run_settings import Settings
from trainer.training.method import Predictions, TrainingResult
from trainer.training.precision import precision
from trainer.training.progress import Progress
from trainer.training.run_folder import Run

# The settings that every co-trained system takes.
COMMON_SETTINGS = frozenset({"model", "data", "labels", "answers", "modalities", "epochs", "cotraining"})


@dataclass(frozen=True)
class CoTrainedModel:
    """The trained views of a finished run, together with its data."""

    settings: Settings
    data: Data
    views: CoTrained[Any]

    def evaluate(self, *, iterations: int | None = None, samples: int | None = None) -> Evaluation:  # noqa: ARG002
        """The scores on the test set; nothing is sampled, so both arguments are ignored."""
        with precision(self.settings, self.data.label.device):
            return evaluation(self.views, self.data)

    def predictions(self, given: Sequence[str]) -> Predictions:
        """Predictions on the test set, given some modalities."""
        (label,) = self.data.test_labels()
        with precision(self.settings, self.data.label.device):
            return self.views.log_q(given, self.data.examples[0].test), label


@dataclass(frozen=True)
class CoTrainingMethod:
    """Rounds of co-training, one run at a time.

    Attributes:
        system: creates the system from settings, data and device.
        stacks: whether several replicas can be trained as one stack.
    """

    system: Callable[[Settings, Data, torch.device], System[Any]]
    stacks: bool = False

    def check(self, settings: Settings, data: Data) -> None:
        """Checks that there are enough modalities for views that teach each other.

        Raises:
            UsageError: there is only one.
        """
        check_views(settings, data)

    def train(self, runs: Sequence[Run], data: Data, device: torch.device, progress: Progress) -> list[TrainingResult]:
        """Runs the rounds that are not yet saved, and then the final fit."""
        (run,) = runs
        with precision(run.settings, device):
            system = self.system(run.settings, data, device)
            trained = cotrain(run, data, system, progress)
            return [TrainingResult(system.tensors(trained), evaluation(trained, data), {})]

    def load(self, run: Run, data: Data, device: torch.device) -> CoTrainedModel:
        """Loads the views of a finished run.

        Raises:
            DataError: the weights are damaged, or do not fit the settings.
        """
        tensors = run.read_weights()
        try:
            with precision(run.settings, device):
                views = self.system(run.settings, data, device).from_tensors(tensors)
        except (KeyError, RuntimeError) as error:
            raise DataError(
                f"the weights in {run.folder} do not fit its settings: {str(error).splitlines()[0]}"
            ) from None
        return CoTrainedModel(run.settings, data, views)
