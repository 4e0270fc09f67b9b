"""JMVAE-kl (Suzuki et al. 2016): JMVAE plus one encoder q(z|x) per modality, kept near q(z|X) by eq. 12 (z for a).

    generative   p(X|z) p(z),  log p(X|z) = sum over modalities of log p(x|z)
    inference    q(z|X)
    encoders     q(z|x), one per modality

    symbol    code            shape
    X         x               modality -> [R, B, D]
    z         z               [R, B, Z]
    q(z|X)    self.q_z
    q(z|x_S)  self.posterior  q(z|X), or the encoders combined where modalities are missing
    q(z|x)    self.q_z_each   one per modality
    p(x|z)    self.p_x        one per modality

A linear probe on z predicts the label (`trainer.evaluation.probe`). Rows that lack modalities, and subsets of several
of more than two, are encoded by their encoders combined (`trainer.models.posterior`); a row's bound sums over the
modalities that it has.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.distributions import kl_divergence

from trainer.models.bound import Bound
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.models.posterior import Posterior
from trainer.nn.distributions import DiagonalNormal, Observation, standard_normal_log_prob
from trainer.nn.presence import beside_others, where_present


class JMVAEkl(nn.Module):
    completions: ClassVar = ("encoders",)
    has_classifier: ClassVar = False

    def __init__(self, make: Factory) -> None:
        super().__init__()
        self.q_z = make.joint("q(z|X)")
        self.q_z_each = make.gaussians("q(z|x)")
        self.posterior = Posterior(make.written("q(z|X)"), self.q_z, self.q_z_each, make.pooling)
        self.p_x = make.observations("p(x|z)")

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """U(x,w) of eq. 1, with its KL term estimated from the sample, and the terms of eq. 12; y is ignored."""
        q_z_each = self.posterior.experts(x)
        q_z = self.posterior(x, q_z_each)
        z = q_z.rsample()
        return Bound(
            log_p={**self.p_x.log_prob(x, z=z), "p(z)": standard_normal_log_prob(z)},
            log_q={self.posterior.name: q_z.log_prob(z)},
            divergence={  # eq. 12
                self.q_z_each[m].name: where_present(beside_others(x, m), kl_divergence(q_z, q))
                for m, q in q_z_each.items()
            },
        )

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal:
        """q(z|X) of rows that have every modality, otherwise the combined encoders of those they have."""
        return self.posterior(x)

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
