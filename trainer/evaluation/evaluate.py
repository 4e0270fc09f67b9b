"""How good a classifier is for every subset of modalities: accuracy, likelihood of the label, calibration, the ELBO."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pipeline.runtime.errors import TrainingError
from pipeline.shards.shard import Modality
from trainer.data.resident import Data
from trainer.models import Classifier, LatentModel, Model
from trainer.nn.rng import Noise

BATCH = 1000
BINS = 15
Classify = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Score:
    """One replica's measures on its test set, given some of the modalities.

    Attributes:
        given: the modalities, `x+w`.
        means: what stands in for the others: `zeros`, `iterative`, `encoders`; `none` where none is missing; `views`
            where the given ones have classifiers of their own.
        accuracy: share of examples whose most probable label is right.
        nll: mean of -log q(y|given) of the right label, in nats.
        ece: expected calibration error of the most probable label, in [0, 1].
        examples: how many.
    """

    given: str
    means: str
    accuracy: float
    nll: float
    ece: float
    examples: int


@dataclass(frozen=True)
class Evaluation:
    """One replica's scores, and its ELBO per test example (the unlabelled bound, one sample), in nats.

    There is no ELBO (None) where no bound was trained, or none was asked for.
    """

    scores: tuple[Score, ...]
    elbo: float | None


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, the single ones first, in the modalities' order."""
    sizes = range(1, len(modalities) + 1)
    return [subset for size in sizes for subset in itertools.combinations(modalities, size)]


def evaluate(
    model: nn.Module, noise: Noise, data: Data, *, iterations: int, samples: int, bound: bool = True, fast: bool = False
) -> list[Evaluation]:
    """Every replica's scores on its own test set, by every means that the model has.

    Args:
        iterations: of iterative sampling.
        samples: of the latent variable before the classifier; 0 takes its mean.
        bound: whether the ELBO is computed too; without a trained bound there is no iterative sampling either.
        fast: leaves out iterative sampling, and models that need a probe: the measure after every epoch.
    """
    subject = cast(Model, model)
    names = [modality.name for modality in data.modalities]
    with evaluating(model, noise):
        scores: list[list[Score]] = [[] for _ in range(noise.replicas)]
        for given in subsets(names):
            for means in ("none",) if len(given) == len(names) else subject.completions:
                if (means == "iterative" and (fast or not bound)) or (fast and not subject.has_classifier):
                    continue
                found = predictions(model, noise, data, given, means, iterations=iterations, samples=samples)
                for replica, (log_q, label) in enumerate(found):
                    scores[replica].append(score("+".join(given), means, log_q, label))
        elbos = _elbo(subject, noise, data) if bound else [None] * noise.replicas
    return [Evaluation(tuple(own), elbo) for own, elbo in zip(scores, elbos, strict=True)]


def predictions(
    model: nn.Module, noise: Noise, data: Data, given: Sequence[str], means: str, *, iterations: int, samples: int
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Each replica's log-probabilities `[N, K]` and labels `[N]` over its test set; to be called within `evaluating`.

    Args:
        given: the modalities that are seen.
        means: what stands in for the others (`Model.completions`), or `none`.
        iterations, samples: as for `evaluate`.
    """
    fill = completion(means, model, noise, data.modalities, iterations)
    if not cast(Model, model).has_classifier:
        return _predictions(probe(cast(LatentModel, model), noise, data, given, fill), noise, fill, data, given)
    classifier = cast(Classifier, model)
    return _predictions(lambda x: classifier.classify(x, samples), noise, fill, data, given)


@contextmanager
def evaluating(model: nn.Module, noise: Noise) -> Iterator[None]:
    """Within it: running statistics, no dropout, no gradients, and noise that leaves training's streams alone."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), noise.apart("evaluation"):
            yield
    finally:
        model.train(training)


def score(given: str, means: str, log_q: NDArray[np.float32], label: NDArray[np.int64]) -> Score:
    """Measures of predictions `[N, K]` (log-probabilities) against labels `[N]`.

    Raises:
        TrainingError: a prediction is no number.
    """
    if np.isnan(log_q).any():
        raise TrainingError(f"the model's predictions from {given} are no numbers", "a smaller --lr often helps")
    right = log_q.argmax(-1) == label
    nll = -log_q[np.arange(len(label)), label].astype(np.float64).mean()
    confidence = np.exp(log_q.max(-1).astype(np.float64))
    return Score(given, means, float(right.mean()), float(nll), calibration_error(confidence, right), len(label))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of (share of examples) * |accuracy - mean confidence|.

    Equal bins over (0, 1], closed on the right, so that a confidence of 1 lies in the last.
    """
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(which, right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(right))


def completion(
    means: str, model: nn.Module, noise: Noise, modalities: Sequence[Modality], iterations: int
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """What turns the given modalities into the classifier's input."""
    if means in ("none", "encoders"):
        return lambda x: x
    if means == "zeros":
        return lambda x: {m.name: x.get(m.name, _like(x, m.width)) for m in modalities}
    return lambda x: iterate(cast(LatentModel, model), noise, x, modalities, iterations)


def _like(x: Mapping[str, Tensor], width: int) -> Tensor:
    """Zeros `[R, B, width]` for the batch of x."""
    reference = next(iter(x.values()))
    return reference.new_zeros(*reference.shape[:-1], width)


def iterate(
    model: LatentModel, noise: Noise, x: Mapping[str, Tensor], modalities: Sequence[Modality], iterations: int
) -> dict[str, Tensor]:
    """Completes x by iterative sampling (eq. 11): from noise, a ~ q(a|X), then the missing x ~ p(x|a), again and again.

    The noise is of the observation's own family: bits, absolute normal values, or normal ones.
    """
    full = {}
    for m in modalities:
        if m.name in x:
            full[m.name] = x[m.name]
            continue
        shape = _like(x, m.width).shape
        if m.distribution == "bernoulli":
            full[m.name] = (noise.uniform(shape) < 0.5).float()
        else:
            full[m.name] = noise.normal(shape).abs() if m.distribution == "nonnegative" else noise.normal(shape)
    missing = [m.name for m in modalities if m.name not in x]
    for _ in range(iterations):
        latent = model.encode(full).sample()
        full |= {name: model.decode(latent, name).sample() for name in missing}
    return full


def probe(
    model: LatentModel,
    noise: Noise,
    data: Data,
    given: Sequence[str],
    fill: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Classify:
    """A classifier for a model that has none: logistic regression from the latent's mean.

    One a replica, fitted on its labelled examples, with the means against missing modalities that the test set will
    meet.
    """
    fitted = []
    for replica, own in enumerate(data.examples):
        rows = torch.from_numpy(own.labelled).to(data.label.device)
        index = rows.expand(len(data.examples), -1)  # every replica encodes them; only its own are kept
        x = data.x(index)
        with noise.only([len(rows) * (r == replica) for r in range(len(data.examples))]):
            latent = model.encode(fill({m: x[m] for m in given})).mean[replica]
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        fitted.append(regression.fit(latent.cpu().numpy(), data.label[rows].cpu().numpy()))

    def classify(x: Mapping[str, Tensor]) -> Tensor:
        latents = model.encode(x).mean.cpu().numpy()
        decisions: list[NDArray[np.float64]] = [
            own.decision_function(latent).astype(np.float64) for own, latent in zip(fitted, latents, strict=True)
        ]
        if decisions[0].ndim == 1:  # two classes: the second one's logit against the first
            decisions = [np.stack([np.zeros_like(own), own], axis=-1) for own in decisions]
        return torch.from_numpy(np.stack(decisions)).log_softmax(-1).float()  # not the log of what may underflow to 0

    return classify


def _predictions(
    classify: Classify,
    noise: Noise,
    fill: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    data: Data,
    given: Sequence[str],
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Each replica's log-probabilities `[N, K]` and labels `[N]` over its test set."""
    parts = []
    for index, rows in data.test_batches(BATCH):
        x = data.x(index)
        with noise.only(rows):
            parts.append(classify(fill({m: x[m] for m in given})).float().cpu().numpy())
    log_q = np.concatenate(parts, axis=1)  # [R, longest N, K]
    return [(log_q[r, : len(label)], label) for r, label in enumerate(data.test_labels())]


def _elbo(model: Model, noise: Noise, data: Data) -> Sequence[float | None]:
    parts = []
    for index, rows in data.test_batches(BATCH):
        with noise.only(rows):
            parts.append(model.bound(data.x(index)).value.cpu())
    elbo = torch.cat(parts, dim=1).double()
    return [float(elbo[r, : len(own.test)].mean()) for r, own in enumerate(data.examples)]
