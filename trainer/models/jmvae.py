"""JMVAE (section 3.2), the unsupervised predecessor: one latent z behind all modalities.

    generative   p(X|z) p(z),  log p(X|z) = sum over modalities of log p(x|z)
    inference    q(z|X)

    symbol  code       shape
    X       x          modality -> [R, B, D]
    z       z          [R, B, Z]
    q(z|X)  self.q_z
    p(x|z)  self.p_x   one per modality

It learns from all pairs and no labels; a linear probe on z predicts the label (`trainer.evaluation.probe`).
A missing modality is replaced by zeros or completed by iterative sampling (eq. 11).
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from trainer.models.bound import Bound
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.nn.distributions import DiagonalNormal, Observation, standard_normal_log_prob


class JMVAE(nn.Module):
    completions: ClassVar = ("zeros", "iterative")
    has_classifier: ClassVar = False

    def __init__(self, make: Factory) -> None:
        super().__init__()
        self.q_z = make.gaussian("q(z|X)")
        self.p_x = make.observations("p(x|z)")

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """U(x,w) of eq. 1, with its KL term estimated from the sample; y is ignored."""
        q_z = self.q_z(x)
        z = q_z.rsample()
        return Bound(
            log_p={**self.p_x.log_prob(x, z=z), "p(z)": standard_normal_log_prob(z)},
            log_q={self.q_z.name: q_z.log_prob(z)},
        )

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal:
        return self.q_z(x)

    def decode(self, z: Tensor, modality: str) -> Observation:
        return self.p_x[modality](z=z)

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.encode(x).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        return self.decode(self.encode(x).mean, target).mean


CARD = ModelCard(
    name="jmvae",
    title="JMVAE",
    build=JMVAE,
    networks={
        # Not in the appendix: modelled on the networks given there.
        "mnist": {
            "q(z|X)": "(X-D512BR-D512BR)-D512BR, D64",
            "p(x|z)": "z-D512BR-D512BR, Dx",
        },
        "rgbd": {
            "q(z|X)": "(X-D1024BR-D1024BR)-D1024BR, D1024",
            "p(x|z)": "z-D1024BR-D1024BR, Dx",
        },
    },
)
