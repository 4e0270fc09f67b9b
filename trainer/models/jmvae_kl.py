"""JMVAE-kl (Suzuki et al. 2016): JMVAE plus one encoder q(z|x) per modality, kept near q(z|X) by eq. 12 (z for a).

    generative   p(X|z) p(z),  log p(X|z) = sum over modalities of log p(x|z)
    inference    q(z|X)
    encoders     q(z|x), one per modality

    symbol  code           shape
    X       x              modality -> [R, B, D]
    z       z              [R, B, Z]
    q(z|X)  self.q_z
    q(z|x)  self.q_z_each  one per modality
    p(x|z)  self.p_x       one per modality

A linear probe on z predicts the label (`trainer.evaluation.probe`). With more than two modalities, a subset of several
is encoded by the normalised geometric mean of its encoders (`trainer.models.bound.pool`).
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.distributions import kl_divergence

from trainer.models.bound import Bound, pool
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.nn.distributions import DiagonalNormal, Observation, standard_normal_log_prob


class JMVAEkl(nn.Module):
    completions: ClassVar = ("encoders",)
    has_classifier: ClassVar = False

    def __init__(self, make: Factory) -> None:
        super().__init__()
        self.q_z = make.gaussian("q(z|X)")
        self.q_z_each = make.gaussians("q(z|x)")
        self.p_x = make.observations("p(x|z)")

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """U(x,w) of eq. 1, with its KL term estimated from the sample, and the terms of eq. 12; y is ignored."""
        q_z = self.q_z(**x)
        z = q_z.rsample()
        return Bound(
            log_p={**self.p_x.log_prob(x, z=z), "p(z)": standard_normal_log_prob(z)},
            log_q={self.q_z.name: q_z.log_prob(z)},
            divergence={q.name: kl_divergence(q_z, q(**{m: x[m]})) for m, q in self.q_z_each.items()},  # eq. 12
        )

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal:
        """q(z|X) if x holds every modality, otherwise the pooled encoders of those it holds."""
        if len(x) == len(self.q_z_each.modalities):
            return self.q_z(**x)
        return pool([self.q_z_each[m](**{m: x[m]}) for m in x])

    def decode(self, z: Tensor, modality: str) -> Observation:
        return self.p_x[modality](z=z)

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.encode(x).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        return self.decode(self.encode(x).mean, target).mean


CARD = ModelCard(
    name="jmvae-kl",
    title="JMVAE-kl",
    build=JMVAEkl,
    has_beta=True,
    networks={
        # Not in the appendix: modelled on the networks given there.
        "mnist": {
            "q(z|X)": "(X-D512BR-D512BR)-D512BR, D64",
            "p(x|z)": "z-D512BR-D512BR, Dx",
            "q(z|x)": "x-D512BR-D512BR, D64",
        },
        "rgbd": {
            "q(z|X)": "(X-D1024BR-D1024BR)-D1024BR, D1024",
            "p(x|z)": "z-D1024BR-D1024BR, Dx",
            "q(z|x)": "x-D1024BR-D1024BR, D1024",
        },
    },
)
