"""Labels: in a bound observed, drawn as a relaxed sample (Gumbel-softmax) or summed over all classes; one-hot; soft."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.nn.distributions import RelaxedLabel


@dataclass(frozen=True)
class Label:
    """What stands for y in a bound, of a batch whose first L rows are labelled.

    Attributes:
        y: `[R, B, K]`; for the exact sum `[K, R, B, K]`, with one class after the other on the leading axis.
        log_q: E[log q(y|.)], `[R, B]`; 0 where y is observed.
        log_likelihood: log q(y|.) of the observed labels, `[R, L]`; None if no label is observed.
        weights: q(y = k|.), `[K, R, B]`, for the exact sum, one-hot where y is observed; otherwise None.
    """

    y: Tensor
    log_q: Tensor
    log_likelihood: Tensor | None = None
    weights: Tensor | None = None

    def mean(self, term: Tensor) -> Tensor:
        """E over y of a term of the bound, `[R, B]` or `[K, R, B] -> [R, B]`."""
        return term if self.weights is None else (self.weights * term).sum(0)


@dataclass(frozen=True)
class LabelPrior:
    """p(y), uniform as in the paper, or as frequent as the classes are.

    Attributes:
        log: log p(y = k) of each replica, `[R, K]`; None if it is uniform.
    """

    log: Tensor | None = None

    def log_prob(self, y: Tensor) -> Tensor:
        """log p(y), `[(K,) R, B, K] -> [(K,) R, B]`; the cross term for a relaxed label."""
        if self.log is None:
            return y.sum(-1) * -math.log(y.shape[-1])
        return (y * self.log.unsqueeze(-2)).sum(-1)


@dataclass(frozen=True)
class LabelRule:
    """How an unobserved label enters a bound.

    Attributes:
        mode: "gumbel" draws one relaxed sample (as the paper does); "exact" sums over all K classes, which evaluates
            the part of the networks that depends on y K times.
        temperature: the temperature of the relaxed sample.
    """

    mode: Literal["gumbel", "exact"] = "gumbel"
    temperature: float = 0.1

    def __call__(self, q_y: RelaxedLabel, y: Tensor | None) -> Label:
        """The label of a bound: observed in the first L rows, estimated from q(y|.), `[R, B, K]`, in all others.

        Args:
            y: the observed labels, one-hot `[R, L, K]`; None if there are none.
        """
        if y is None:
            return self._estimate(q_y)
        rows = y.shape[-2]
        log_likelihood = q_y[:rows].log_prob(y)
        log_q = torch.zeros_like(log_likelihood)
        if rows == q_y.logits.shape[-2]:
            return Label(y, log_q, log_likelihood)
        others = self._estimate(q_y[rows:])
        log_q = torch.cat([log_q, others.log_q], -1)
        if others.weights is None:
            return Label(torch.cat([y, others.y], -2), log_q, log_likelihood)
        all_classes = others.y[:, :, :1].expand(-1, -1, log_q.shape[-1], -1)
        return Label(all_classes, log_q, log_likelihood, torch.cat([y.movedim(-1, 0), others.weights], -1))

    def _estimate(self, q_y: RelaxedLabel) -> Label:
        """The label of rows of which none is observed."""
        if self.mode == "exact":
            replicas, batch, classes = q_y.logits.shape
            all_classes = torch.eye(classes, dtype=q_y.logits.dtype, device=q_y.logits.device)[:, None, None].expand(
                -1, replicas, batch, -1
            )
            return Label(all_classes, log_q=q_y.negative_entropy(), weights=q_y.probs.movedim(-1, 0))
        relaxed = q_y.relaxed(self.temperature)
        return Label(relaxed, log_q=q_y.log_prob(relaxed))


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Class indices as float32 one-hot vectors, `[...] -> [..., K]`."""
    return F.one_hot(label, classes).to(torch.float32)


def sharpened(soft: Tensor, sharpness: float) -> Tensor:
    """p^s / sum p^s of soft labels p, `[..., K]`."""
    return (sharpness * soft.clamp_min(torch.finfo(soft.dtype).tiny).log()).softmax(-1)


def certainty(soft: Tensor) -> Tensor:
    """((p_1 - p_2) / (p_1 + p_2))^2 of soft labels, p_1 and p_2 the two greatest, `[..., K] -> [...]`.

    A row that lies between two classes has 0, however few others it could be.
    """
    first, second = soft.topk(2, -1).values.unbind(-1)
    return ((first - second) / (first + second)).square()


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of two categorical distributions given as log-probabilities, `[..., K] -> [...]`."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
