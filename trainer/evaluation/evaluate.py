"""Evaluates a model given each subset of the modalities: accuracy, likelihood of the label, calibration; the ELBO."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainer.data.interface import Data
from trainer.evaluation.metrics import Evaluation, Score, score
from trainer.evaluation.missing_modalities import Fill, completer
from trainer.evaluation.probe import Classify, probe
from trainer.evaluation.subsets import shown_subsets, subsets
from trainer.models.interface import Classifier, LatentModel, Model
from trainer.nn.presence import given
from trainer.nn.rng import Noise

BATCH = 1000  # test examples per replica


def evaluate(
    model: nn.Module, noise: Noise, data: Data, *, iterations: int, samples: int, bound: bool = True, fast: bool = False
) -> list[Evaluation]:
    """Scores every replica on its own test set, with every completion that the model has; no scores without a test set.

    Given some modalities, the rows count that have any of them, and the model sees what they have of them.

    Args:
        iterations: the number of iterations of iterative sampling.
        samples: the number of points of the latent variable before the classifier; 0 uses its mean.
        bound: whether to compute the ELBO; without a trained bound, iterative sampling is skipped as well.
        fast: whether to skip iterative sampling, models that need a probe, and the subsets that are not shown
            (`shown_subsets`), as after every epoch of training.
    """
    if not any(len(examples.test) for examples in data.examples):
        return [Evaluation((), None)] * noise.replicas
    subject = cast(Model, model)
    names = [modality.name for modality in data.modalities]
    shown = shown_subsets(names)
    with evaluating(model, noise):
        scores: list[list[Score]] = [[] for _ in range(noise.replicas)]
        for subset, completion in ways_to_classify(subject, names, bound and not fast):
            if fast and (not subject.has_classifier or subset not in shown):
                continue
            if not subject.has_classifier and not all(len(examples.labelled) for examples in data.examples):
                continue  # a probe learns from labels
            by_replica = predictions(model, noise, data, subset, completion, iterations=iterations, samples=samples)
            counted = data.test_rows_with(subset)
            for replica, ((log_q, label), rows) in enumerate(zip(by_replica, counted, strict=True)):
                if rows.any():
                    scores[replica].append(score("+".join(subset), completion, log_q[rows], label[rows]))
        elbos = _elbo(subject, noise, data) if bound else [None] * noise.replicas
    return [Evaluation(tuple(of_replica), elbo) for of_replica, elbo in zip(scores, elbos, strict=True)]


def ways_to_classify(model: Model, modalities: Sequence[str], iterative: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each subset of the modalities with each completion of the model for the others, or `none` if none is missing.

    Args:
        iterative: whether to include iterative sampling, if the model has it.
    """
    for subset in subsets(modalities):
        for completion in ("none",) if len(subset) == len(modalities) else model.completions:
            if iterative or completion != "iterative":
                yield subset, completion


def predictions(
    model: nn.Module, noise: Noise, data: Data, names: Sequence[str], completion: str, *, iterations: int, samples: int
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Each replica's log-probabilities `[N, K]` and labels `[N]` over its test set; call it within `evaluating`.

    Args:
        names: the modalities that the model sees.
        completion: how the missing ones are completed (see `Model.completions`); `none` if none is missing.
        iterations, samples: as in `evaluate`.
    """
    fill = completer(completion, model, noise, data.modalities, iterations)
    if not cast(Model, model).has_classifier:
        return _predictions(probe(cast(LatentModel, model), noise, data, names, fill), noise, fill, data, names)
    classifier = cast(Classifier, model)
    return _predictions(lambda x: classifier.classify(x, samples), noise, fill, data, names)


@contextmanager
def evaluating(model: nn.Module, noise: Noise) -> Iterator[None]:
    """A context with running statistics, no dropout, no gradients, and noise separate from training's."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), noise.separate_streams("evaluation"):
            yield
    finally:
        model.train(training)


def _predictions(
    classify: Classify,
    noise: Noise,
    fill: Fill,
    data: Data,
    names: Sequence[str],
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Each replica's log-probabilities `[N, K]` and labels `[N]` over its test set."""
    batches = []
    for index, rows in data.test_batches(BATCH):
        x = data.x(index)
        with noise.limit_rows(rows):
            batches.append(classify(fill(given(x, names))).float().cpu().numpy())
    log_q = np.concatenate(batches, axis=1)  # [R, longest N, K]
    return [(log_q[r, : len(label)], label) for r, label in enumerate(data.test_labels())]


def _elbo(model: Model, noise: Noise, data: Data) -> Sequence[float | None]:
    """Each replica's mean unlabelled bound over its test set."""
    batches = []
    for index, rows in data.test_batches(BATCH):
        with noise.limit_rows(rows):
            batches.append(model.bound(data.x(index)).value.cpu())
    elbo = torch.cat(batches, dim=1).double()
    return [float(elbo[r, : len(examples.test)].mean()) for r, examples in enumerate(data.examples)]
