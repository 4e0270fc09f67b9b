"""The posterior of a latent given whichever modalities a row has: the joint encoder's, or several encoders' combined.

    q(a|X)    of rows that have every modality, as in the paper
    q(a|x_S)  of rows that have the modalities S, from the single-modality encoders q(a|x_m), m in S:

        geometric   q = prod_m q_m^(1/|S|), normalised: precisions are averaged. It minimises sum_m KL(q || q_m), which
                    reads eq. 12 in reverse: the joint posterior nearest to the encoders
        product     q = N(0, I) prod_m q_m, normalised: precisions are added, and the prior is one more expert
                    (Wu and Goodman 2018, arXiv:1802.05335, eq. 4)

Without a joint encoder the rows that have every modality get the same combination.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer.nn.batch_norm import only_rows
from trainer.nn.distributions import DiagonalNormal, Gaussian, PerModality
from trainer.nn.presence import all_present, given, present_rows, zeros_where_absent

Pooling = Literal["geometric", "product"]
Experts = Mapping[str, DiagonalNormal]


@dataclass(frozen=True)
class Posterior:
    """q(a|x_S), with the networks of a model.

    Attributes:
        name: `q(a|x,w)`.
        joint: q(a|X), or None for a model that combines its encoders even where nothing is missing.
        each: q(a|x), one per modality.
        pooling: how several encoders are combined.
    """

    name: str
    joint: Gaussian | None
    each: PerModality[Gaussian]
    pooling: Pooling

    def experts(self, x: Mapping[str, Tensor]) -> dict[str, DiagonalNormal]:
        """q(a|x_m) of every modality m in x; what it says of rows that lack the modality means nothing."""
        experts = {}
        for m, encoder in self.each.items():
            if m in x:
                with only_rows(present_rows(x, m)):
                    experts[m] = encoder({m: x[m]})
        return experts

    def __call__(self, x: Mapping[str, Tensor], experts: Experts | None = None) -> DiagonalNormal:
        """q(a|x_S) of each row, S being those of x's modalities that it has.

        Args:
            experts: `experts(x)`, if they are known.
        """
        complete = all_present(x) if len(x) == len(self.each.modalities) else None
        if self.joint is not None and len(x) == len(self.each.modalities):
            with only_rows(complete):
                q = self.joint(x)
            if complete is None:
                return q
            pooled = pool(x, self.experts(x) if experts is None else experts, self.pooling)
            rows = complete.unsqueeze(-1)
            return DiagonalNormal(
                torch.where(rows, q.mean, pooled.mean), torch.where(rows, q.variance, pooled.variance), q.noise
            )
        return pool(x, self.experts(x) if experts is None else experts, self.pooling)

    def of_singles(self, x: Mapping[str, Tensor], experts: Experts) -> dict[tuple[str, ...], DiagonalNormal]:
        """q(a|x_m) of every modality m alone, where there are several, keyed by (m,)."""
        return {(m,): self(given(x, [m]), {m: q}) for m, q in experts.items()} if len(x) > 1 else {}


def pool(x: Mapping[str, Tensor], experts: Experts, pooling: Pooling) -> DiagonalNormal:
    """The experts' combination for each row, over the modalities that it has.

    What it says of a row that has none means nothing, as in `Posterior.experts`.
    """
    if len(experts) == 1 and pooling == "geometric":
        return next(iter(experts.values()))
    precisions = torch.stack([zeros_where_absent(present_rows(x, m), 1 / q.variance) for m, q in experts.items()])
    weighted = torch.stack([zeros_where_absent(present_rows(x, m), q.mean / q.variance) for m, q in experts.items()])
    noise = next(iter(experts.values())).noise
    if pooling == "product":
        precision = 1 + precisions.sum(0)
        return DiagonalNormal(weighted.sum(0) / precision, 1 / precision, noise)
    there = [present_rows(x, m) for m in experts]
    ones = precisions.new_ones(precisions.shape[1:3])
    number = torch.stack([ones if rows is None else rows.to(ones.dtype) for rows in there]).sum(0).unsqueeze(-1)
    precision = torch.where(number > 0, precisions.sum(0), 1.0)
    return DiagonalNormal(weighted.sum(0) / precision, number.clamp_min(1) / precision, noise)
