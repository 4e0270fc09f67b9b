"""The label in a bound: observed, drawn as a relaxed sample (Gumbel-softmax), or summed over all its classes."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.nn.distributions import RelaxedLabel


@dataclass(frozen=True)
class Label:
    """What stands for y in a bound.

    Attributes:
        y: `[R, B, K]`; or `[K, R, B, K]`, every class in turn on a leading axis, for the exact sum.
        log_q: E[log q(y|.)], `[R, B]`; 0 where y is observed.
        log_likelihood: log q(y|.) of the observed label, `[R, B]`; None where there is none.
        weights: q(y = k|.) of the exact sum, `[K, R, B]`.
    """

    y: Tensor
    log_q: Tensor
    log_likelihood: Tensor | None = None
    weights: Tensor | None = None

    def mean(self, term: Tensor) -> Tensor:
        """E over y of a term of the bound, `[R, B]` or `[K, R, B] -> [R, B]`."""
        return term if self.weights is None else (self.weights * term).sum(0)


@dataclass(frozen=True)
class LabelRule:
    """How an unobserved label enters a bound.

    Attributes:
        mode: "gumbel", one relaxed sample (the paper's way); "exact", the sum over all K classes, which costs K times
            the part of the networks that depends on y.
        temperature: of the relaxed sample.
    """

    mode: Literal["gumbel", "exact"] = "gumbel"
    temperature: float = 0.1

    def __call__(self, q_y: RelaxedLabel, y: Tensor | None) -> Label:
        """y as observed (one-hot, `[R, B, K]`), or as q(y|.) of shape `[R, B, K]` has it."""
        if y is not None:
            log_likelihood = q_y.log_prob(y)
            return Label(y, log_q=torch.zeros_like(log_likelihood), log_likelihood=log_likelihood)
        if self.mode == "exact":
            replicas, batch, classes = q_y.logits.shape
            every = torch.eye(classes, device=q_y.logits.device)[:, None, None].expand(-1, replicas, batch, -1)
            return Label(every, log_q=q_y.negative_entropy(), weights=q_y.probs.movedim(-1, 0))
        relaxed = q_y.relaxed(self.temperature)
        return Label(relaxed, log_q=q_y.log_prob(relaxed))


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Class indices as float32 one-hot vectors, `[...] -> [..., K]`."""
    return F.one_hot(label, classes).to(torch.float32)
