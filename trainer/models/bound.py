"""What every model's bound returns, and the average over samples that a prediction needs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.nn.distributions import DiagonalNormal, RelaxedLabel


@dataclass(frozen=True)
class Bound:
    """A variational lower bound, term by term; each term is per example, `[R, B]`, keyed by its distribution's name.

    Attributes:
        log_p: log-densities of the generative model.
        log_q: log-densities of the inference model.
        log_q_y: log q(y|.) of the observed labels, `[R, L]`, for eq. 6; None if there are none, or no classifier.
        divergence: the KL terms of eq. 12; empty for models without single-modality encoders.
        posteriors: q(a|x_S) of the same rows, for those sets S of modalities for which the bound has inferred it;
            what else needs them (`Classifier.classify`) need not infer them again.
    """

    log_p: Mapping[str, Tensor]
    log_q: Mapping[str, Tensor]
    log_q_y: Tensor | None = None
    divergence: Mapping[str, Tensor] = field(default_factory=dict)
    posteriors: Mapping[tuple[str, ...], DiagonalNormal] = field(default_factory=dict)

    @property
    def value(self) -> Tensor:
        """The bound itself: the sum of the log p terms minus the sum of the log q terms, `[R, B]`."""
        return torch.stack([*self.log_p.values(), *(-term for term in self.log_q.values())]).sum(0)

    def divided(self, y: Tensor | None) -> tuple["Bound | None", "Bound | None"]:
        """The bounds of the first rows, which have the labels y `[R, L, K]`, and of the others; None where none are."""
        rows = 0 if y is None else y.shape[-2]
        if rows in (0, self.value.shape[-1]):
            return (self, None) if rows else (None, self)
        return self._part(slice(rows), self.log_q_y), self._part(slice(rows, None), None)

    def _part(self, rows: slice, log_q_y: Tensor | None) -> "Bound":
        log_p, log_q, divergence = (
            {name: term[:, rows] for name, term in terms.items()} for terms in (self.log_p, self.log_q, self.divergence)
        )
        return Bound(log_p, log_q, log_q_y, divergence)


def average_classifier(classifier: Callable[[Tensor], RelaxedLabel], q: DiagonalNormal, samples: int) -> Tensor:
    """log E_q(a)[q(y|a)], `[R, B, K]`: averaged over `samples` points, or at the mean of q if `samples` is 0."""
    if samples == 0:
        return classifier(q.mean).logits
    log_q = torch.stack([classifier(a).logits for a in q.points(samples)])
    return torch.logsumexp(log_q, dim=0) - math.log(samples)
