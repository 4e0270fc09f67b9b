"""CT+SVM (Cheng et al. 2014): one linear support vector machine per modality, co-trained and fused by a product."""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor

from trainer.baselines.cotraining import Check, CoTrained, LogQ, TrainingSet, group
from trainer.baselines.method import COMMON_SETTINGS, CoTrainingMethod
from trainer.data.interface import Data
from trainer.data.selection import Rows
from trainer.models.card import ModelCard
from trainer.nn.rng import seed_for
from trainer.settings.run_settings import Settings

_log = logging.getLogger(__name__)
BLOCK = 4096  # rows that are predicted or scaled at a time
MOST_ITERATIONS = 10_000  # of the solver, for one fit
_CONSTANT = 1e-12  # a feature is constant if its variance is below this fraction of the largest mean square
_TINY = 1e-300  # the least value of that mean square, so that features that are all 0 are constant, too
_PARTS = ("coefficients", "intercept")


@dataclass(frozen=True)
class LinearView:
    """One-against-the-rest classifiers on one modality, with decision values features @ coefficients + intercept.

    q(y|x) is the softmax of the decision values. It ranks examples as they do, but it is not a calibrated probability.

    Attributes:
        features: the features of the modality, `[rows, D]`.
        coefficients: `[D, K]` float64, for unscaled features as in the shard (the scaling is folded in).
        intercept: `[K]` float64.
    """

    features: NDArray[np.float32]
    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def log_q(self, rows: Rows) -> LogQ:
        blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
        decision = [self.features[block].astype(np.float64) @ self.coefficients + self.intercept for block in blocks]
        return torch.from_numpy(np.concatenate(decision)).log_softmax(-1).float().numpy()


class SupportVectorMachines:
    """The system `ct-svm`: one support vector machine per modality."""

    completions: ClassVar = ("views",)
    has_classifier: ClassVar = True

    def __init__(self, settings: Settings, data: Data, _device: torch.device) -> None:
        self.settings = settings
        self.features = {name: tensor.cpu().numpy() for name, tensor in data.features.items()}
        self.classes = len(data.classes)
        train = np.concatenate([data.examples[0].labelled, data.examples[0].unlabelled])
        self.scaling = {name: _scaling(values, np.sort(train), settings) for name, values in self.features.items()}

    def fit(self, name: str, training_set: TrainingSet, check: Check) -> LinearView:
        check()
        mean, deviation = self.scaling[name]
        seed = int(seed_for(self.settings.seed, f"svm of {name}").generate_state(1)[0])
        x, basis = _in_row_space((self.features[name][training_set.rows] - mean) / deviation)
        machine = LinearSVC(C=group(self.settings).cost, random_state=seed, max_iter=MOST_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the warning below says which modality it is
            machine.fit(x, training_set.labels)
        if machine.n_iter_ >= MOST_ITERATIONS:
            _log.warning("the support vector machine of %s did not converge in %d iterations", name, MOST_ITERATIONS)
        weights, bias = machine.coef_.astype(np.float64), machine.intercept_.astype(np.float64)
        if self.classes == 2:  # scikit-learn has only the weights of the second class
            weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
        coefficients = basis(weights).T / deviation[:, None]
        return LinearView(self.features[name], coefficients, bias - mean @ coefficients)

    def choose(self, _view: LinearView, rows: Rows, count: int) -> Rows:
        return rows[:count]

    def fuse(self, _views: Mapping[str, LinearView], _training_set: TrainingSet, _check: Check) -> None:
        return None

    def tensors(self, trained: CoTrained[LinearView]) -> dict[str, Tensor]:
        return {
            f"{part} of {name}": torch.from_numpy(getattr(view, part))
            for name, view in trained.views.items()
            for part in _PARTS
        }

    def from_tensors(self, tensors: Mapping[str, Tensor]) -> CoTrained[LinearView]:
        views = {}
        for name, features in self.features.items():
            coefficients, intercept = (tensors[f"{part} of {name}"].numpy() for part in _PARTS)
            if (coefficients.shape, intercept.shape) != ((features.shape[1], self.classes), (self.classes,)):
                raise KeyError(f"the shape of the coefficients of {name}")
            views[name] = LinearView(features, coefficients, intercept)
        return CoTrained(views, None)


def _in_row_space(
    x: NDArray[np.float64],
) -> tuple[NDArray[np.float64], Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Reduces examples `[N, D]` to `[N, N]` if there are fewer examples than features.

    The weights of a support vector machine lie in the space that the examples span, so it can be fitted there.

    Returns:
        The examples in coordinates of that space, which keep their inner products, and a function that turns weights
        `[K, N]` back into weights of the features, `[K, D]`.
    """
    if x.shape[0] >= x.shape[1]:
        return x, lambda weights: weights
    left, size, right = np.linalg.svd(x, full_matrices=False)
    return left * size, lambda weights: weights @ right


def _scaling(
    features: NDArray[np.float32], train: Rows, settings: Settings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean and the divisor of each feature, `[D]` each, over the training rows, labelled or not."""
    total = np.zeros((2, features.shape[1]))
    for start in range(0, len(train), BLOCK):
        block = features[train[start : start + BLOCK]].astype(np.float64)
        total += [block.sum(0), np.square(block).sum(0)]
    mean, square = total / len(train)
    variance = np.maximum(square - np.square(mean), 0)
    if group(settings).scale == "view":
        variance = np.full_like(variance, variance.mean())
    constant = variance < _CONSTANT * max(float(square.max()), _TINY)
    return mean, np.sqrt(np.where(constant, 1, variance))


# The cost of a support vector machine on 4,096 features: on the rendered sample it is as accurate as cost 1, and the
# solver converges (docs/models/cotraining.md).
_WIDE_COST = 0.001

CARD = ModelCard(
    name="ct-svm",
    title="CT+SVM",
    build=SupportVectorMachines,
    method=CoTrainingMethod(SupportVectorMachines),
    presets={  # all values are ours: the paper only quotes this system's results
        "mnist": {"epochs": 20, "cotraining": {"k_best": 10, "pool": 5000, "cost": 1.0}},
        "rgbd": {"epochs": 10, "cotraining": {"k_best": 5, "pool": 5000, "least_steps": 600, "cost": _WIDE_COST}},
        "digits": {"epochs": 10, "cotraining": {"k_best": 5, "cost": 1.0}},
        "sample": {"epochs": 5, "cotraining": {"k_best": 2, "cost": _WIDE_COST}},
    },
    accepts=COMMON_SETTINGS | {f"cotraining.{name}" for name in ("k_best", "pool", "cost", "scale")},
)
