"""The co-trained systems that the paper compares with (tables 5 and 6): not deep generative models, and not stacked."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.runtime.errors import DataError, UsageError
from trainer.baselines.cotrained_networks import Networks
from trainer.baselines.cotrained_svm import SupportVectorMachines
from trainer.baselines.cotraining import CoTrained, System, V, check_views, cotrain, evaluation
from trainer.data.resident import Data
from trainer.evaluation.evaluate import Evaluation
from trainer.training.loop import Progress
from trainer.training.run_folder import Run

__all__ = ["RIVALS", "check_values", "check_views", "evaluate_rival", "load_rival", "train_rival"]

_COMMON = {"model", "data", "labels", "modalities", "epochs", "cotraining"}
_SVM = {"additions", "pool", "cost", "scale"}
_NETWORKS = {"additions", "pool", "candidates", "granularity", "passes", "least_steps"}
RIVALS: dict[str, tuple[set[str], set[str]]] = {  # the settings that each takes, and those of its [cotraining]
    "ct-svm": (_COMMON, _SVM),
    "cotraining": (_COMMON | {"labelled_batch_size", "learning_rate", "precision", "networks"}, _NETWORKS),
}


def check_values(model: str, values: Mapping[str, object]) -> None:
    """Refuses settings that would change nothing.

    Raises:
        UsageError: a co-trained system has no such setting.
    """
    if model not in RIVALS:
        return
    own = values.get("cotraining")
    for prefix, known, given in zip(
        ("", "cotraining."), RIVALS[model], (values, own if isinstance(own, Mapping) else {}), strict=True
    ):
        for name in _unknown(known, given):
            raise UsageError(
                f"{model} has no setting '{prefix}{name}'",
                f"its settings: {', '.join(prefix + k for k in sorted(known))}",
            )


def _unknown(known: set[str], given: Iterable[str]) -> list[str]:
    return sorted(set(given) - known)


def train_rival(run: Run, data: Data, device: torch.device, progress: Progress) -> tuple[dict[str, Tensor], Evaluation]:
    """Trains and measures a system: its weights and its scores.

    Args:
        data: of one replica.

    Raises:
        UsageError: there are not two modalities.
        Interrupted: someone asked to stop; the rounds so far are saved.
    """
    if run.settings.model == "ct-svm":
        return _train(SupportVectorMachines(run.settings, data), run, data, progress)
    return _train(Networks(run.settings, data, device), run, data, progress)


def evaluate_rival(run: Run, data: Data, device: torch.device) -> Evaluation:
    """A finished run's scores, from its weights.

    Raises:
        DataError: the weights are damaged, or not of these settings.
    """
    return evaluation(load_rival(run, data, device), data)


def load_rival(run: Run, data: Data, device: torch.device) -> CoTrained[Any]:
    """A finished run's trained views.

    Raises:
        DataError: the weights are damaged, or not of these settings.
    """
    tensors = run.read_weights()
    try:
        if run.settings.model == "ct-svm":
            return SupportVectorMachines(run.settings, data).from_tensors(tensors)
        return Networks(run.settings, data, device).from_tensors(tensors)
    except (KeyError, RuntimeError) as error:
        raise DataError(f"the weights in {run.folder} do not fit its settings: {str(error).splitlines()[0]}") from None


def _train(system: System[V], run: Run, data: Data, progress: Progress) -> tuple[dict[str, Tensor], Evaluation]:
    trained = cotrain(run, data, system, progress)
    return system.tensors(trained), evaluation(trained, data)
