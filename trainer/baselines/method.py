"""The co-trained systems under the protocol of every other model: checked, trained, loaded and evaluated."""

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
from trainer.training.progress import Progress
from trainer.training.run_folder import Run
from trainer.training.step import precision

# The settings that every co-trained system takes.
COMMON_SETTINGS = frozenset({"model", "data", "labels", "modalities", "epochs", "cotraining"})


@dataclass(frozen=True)
class CoTrainedModel:
    """A finished run's trained views."""

    settings: Settings
    data: Data
    views: CoTrained[Any]

    def evaluate(self, *, iterations: int | None = None, samples: int | None = None) -> Evaluation:  # noqa: ARG002
        """The scores on the test set; nothing is sampled, so that both arguments change nothing."""
        with precision(self.settings, self.data.label.device):
            return evaluation(self.views, self.data)

    def predictions(self, given: Sequence[str]) -> Predictions:
        """Predictions over the test set from some modalities."""
        (label,) = self.data.test_labels()
        with precision(self.settings, self.data.label.device):
            return self.views.log_q(given, self.data.examples[0].test), label


@dataclass(frozen=True)
class CoTrainingMethod:
    """Rounds of co-training, one run at a time.

    Attributes:
        system: makes the system from settings, data and device.
    """

    system: Callable[[Settings, Data, torch.device], System[Any]]
    stacks: bool = False

    def check(self, settings: Settings, data: Data) -> None:
        """
        Raises:
            UsageError: there are not two modalities to teach one another.
        """
        check_views(settings, data)

    def train(self, runs: Sequence[Run], data: Data, device: torch.device, progress: Progress) -> list[TrainingResult]:
        """All rounds, from the last one that was saved, then the final fit."""
        (run,) = runs
        with precision(run.settings, device):
            system = self.system(run.settings, data, device)
            trained = cotrain(run, data, system, progress)
            return [TrainingResult(system.tensors(trained), evaluation(trained, data), {})]

    def load(self, run: Run, data: Data, device: torch.device) -> CoTrainedModel:
        """
        Raises:
            DataError: the weights are damaged, or not of these settings.
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
