"""Eqs. 6, 7, 12 and 13, written once for the bounds of all models. J is maximised; the loss is its negative."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from trainer.models.bound import Bound


@dataclass(frozen=True)
class Objective:
    """J of each replica, to be maximised, and the terms it consists of.

    Attributes:
        value: J, `[R]`.
        terms: J, the batch means of which J is the weighted sum, and the terms of the bounds; `[R]` each, by name.
    """

    value: Tensor
    terms: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """The value to minimise: -J summed over the replicas, so that no replica's gradient affects another."""
        return -self.value.sum()


def objective(
    labelled: Bound | None,
    unlabelled: Bound | None,
    *,
    alpha: Tensor,
    beta: Tensor,
    labelled_share: Tensor,
    penalties: Mapping[str, tuple[float | Tensor, Tensor]] = MappingProxyType({}),
) -> Objective:
    """J of eq. 7, or J_kl of eq. 13 if the bounds have divergences.

        L_l   = L + alpha log q(y|X)                                        (6)
        J     = mean over D_L of L_l + mean over D_U of U                   (7)
        J_div = mean over D_L and D_U together of sum_m KL(q(a|X) || q(a|x_m))  (12)
        J_kl  = J - beta J_div                                              (13)

    Args:
        labelled: the labelled bound of a batch of D_L; None if the model does not learn from labels.
        unlabelled: the unlabelled bound of a batch of D_U; None if all examples are labelled.
        alpha, beta: the weights of eqs. 6 and 13, `[R]` each.
        labelled_share: |D_L| / (|D_L| + |D_U|), `[R]`. In the mean of eq. 12, each batch represents its whole set.
        penalties: (weight, value `[R]`) by name, subtracted from J; none in the paper's objective.
    """
    value = torch.zeros_like(alpha)
    divergence = torch.zeros_like(beta)
    terms: dict[str, Tensor] = {}
    if labelled is None or unlabelled is None:  # the one batch represents all examples
        shares = {"L": torch.ones_like(beta), "U": torch.ones_like(beta)}
    else:
        shares = {"L": labelled_share, "U": 1 - labelled_share}
    for symbol, bound in (("L", labelled), ("U", unlabelled)):
        if bound is None:
            continue
        terms[symbol] = bound.value.mean(-1)
        value = value + terms[symbol]
        if bound.log_q_y is not None:
            terms["log q(y)"] = bound.log_q_y.mean(-1)
            value = value + alpha * terms["log q(y)"]
        for term in bound.divergence.values():
            divergence = divergence + shares[symbol] * term.mean(-1)
    if any(bound is not None and bound.divergence for bound in (labelled, unlabelled)):
        terms["J_div"] = divergence
        value = value - beta * divergence
    for name, (weight, term) in penalties.items():
        terms[name] = term
        value = value - weight * term
    for symbol, bound in (("L", labelled), ("U", unlabelled)):
        if bound is not None:
            terms |= _batch_means(symbol, "log", bound.log_p) | _batch_means(symbol, "-log", bound.log_q, -1)
            terms |= _batch_means(symbol, "KL to", bound.divergence)
    return Objective(value, {"J": value} | {name: term.detach() for name, term in terms.items()})


def classifier_alone(labelled: Bound, *, beta: Tensor) -> Objective:
    """J = mean over D_L of log q(y|X), minus beta J_div if there are single-modality encoders (table 6)."""
    assert labelled.log_q_y is not None, "a labelled bound of a model with a classifier"
    terms = {"log q(y)": labelled.log_q_y.mean(-1)}
    value = terms["log q(y)"]
    if labelled.divergence:
        terms["J_div"] = torch.stack([term.mean(-1) for term in labelled.divergence.values()]).sum(0)
        value = value - beta * terms["J_div"]
    return Objective(value, {"J": value} | {name: term.detach() for name, term in terms.items()})


def _batch_means(symbol: str, function: str, terms: Mapping[str, Tensor], sign: int = 1) -> dict[str, Tensor]:
    """Terms `[R, B]` averaged over the batch, named as in the metrics: `L: log p(x|z)`."""
    return {f"{symbol}: {function} {name}": sign * term.mean(-1) for name, term in terms.items()}
