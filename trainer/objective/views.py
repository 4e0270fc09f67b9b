"""What a model predicts of a batch from all modalities and from each alone, inferred once for all terms that ask."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.models.interface import Classifier
from trainer.nn.batch_norm import running_statistics
from trainer.nn.distributions import DiagonalNormal
from trainer.nn.presence import Incomplete, given, present_rows, some_rows
from trainer.nn.segments import in_segments, segments_of

Features = Mapping[str, Tensor]
Posteriors = Mapping[tuple[str, ...], DiagonalNormal]


class View(NamedTuple):
    """What a model predicts from some modalities.

    Attributes:
        log_q: log q(y|view), `[R, B, K]`.
        rows: the examples that have the view, bool `[R, B]`; None for all.
    """

    log_q: Tensor
    rows: Tensor | None = None

    def part(self, rows: slice) -> "View":
        """The same of some rows of the batch."""
        return View(self.log_q[:, rows], None if self.rows is None else self.rows[:, rows])


class Views:
    """The views of a batch of labelled and then unlabelled rows; each is computed when a term first asks for it.

    Args:
        x: the features of the batch.
        y: the labels of its first L rows, one-hot `[R, L, K]`; None if L is 0.
        posteriors: those of the batch that are known, from its bound.
    """

    def __init__(
        self, model: Classifier, x: Features, y: Tensor | None = None, posteriors: Posteriors = MappingProxyType({})
    ) -> None:
        self.model, self.x, self.y = model, x, y
        self._posteriors = posteriors
        batch = next(iter(x.values())).shape[1]
        self._segments = segments_of(y, batch)
        at = 0 if y is None else y.shape[1]
        self.labelled, self.unlabelled = slice(0, at), slice(at, batch)
        self.has_unlabelled = at < batch

    @cached_property
    def joint(self) -> View:
        """log q(y|X) of every row."""
        return View(self._classify(self.x, self._posteriors.get(tuple(self.x))))

    @cached_property
    def singles(self) -> dict[str, View]:
        """log q(y|x_m) of every row, by modality m."""
        with alone(self.model):
            return {
                m: View(self._classify(part, self._posteriors.get((m,))), present_rows(self.x, m))
                for m, part in singles(self.model, self.x).items()
            }

    def every(self, rows: slice) -> list[View]:
        """What is predicted of some rows given all modalities, and given each alone where there are several."""
        alone = self.singles.values() if len(self.x) > 1 else ()
        return [view.part(rows) for view in (self.joint, *alone)]

    def classify(self, x: Features) -> Tensor:
        """log q(y|x) of other features of the whole batch, `[R, B, K]`."""
        return self._classify(x, None)

    @cached_property
    def x_u(self) -> Features:
        """The features of the unlabelled rows."""
        return some_rows(self.x, self.unlabelled)

    def _classify(self, x: Features, q_a: DiagonalNormal | None) -> Tensor:
        with in_segments(self._segments):
            return self.model.classify(x, q_a=q_a)


def singles(model: Classifier, x: Features) -> dict[str, Features]:
    """By modality, the input that holds it alone; the others are left out if the model has encoders, or else zeros."""
    if _has_encoders(model):
        return {m: given(x, [m]) for m in x}
    return {m: _among_zeros(x, m) for m in x}


def _among_zeros(x: Features, modality: str) -> Features:
    """A modality alone: every row lacks the others, and of it what it lacks."""
    first = next(iter(x.values()))
    there = {n: first.new_zeros(first.shape[:-1], dtype=torch.bool) for n in x if n != modality}
    if (rows := present_rows(x, modality)) is not None:
        there[modality] = rows
    return Incomplete({n: value if n == modality else torch.zeros_like(value) for n, value in x.items()}, there)


def alone(model: Classifier) -> AbstractContextManager[None]:
    """A context in which the inputs of `singles` are normalised as they will be when a camera has failed.

    Zeros in a whole batch would be normalised by themselves alone, and a network would learn what no test shows it: a
    test has the running statistics, of rows that lack nothing.
    """
    return nullcontext() if _has_encoders(model) else running_statistics()


def _has_encoders(model: Classifier) -> bool:
    return "encoders" in model.completions
