"""SS-HMVAE (section 3.4): a latent `a` fuses the modalities, with an M2 on top of it.

    generative   p(X|a) p(a|z,y) p(z) p(y),  log p(X|a) = sum over modalities of log p(x|a)
    inference    q(a|X) q(z|a,y),  classifier q(y|a):  log q(y|X) = log E_q(a|X)[q(y|a)]

    symbol    code       shape
    X         x          modality -> [R, B, D]
    y         y          [R, B, K], or [K, R, B, K] for the sum over classes
    a         a          [R, B, A]
    z         z          [(K,) R, B, Z]
    q(a|X)    self.q_a
    q(y|a)    self.q_y
    q(z|a,y)  self.q_z
    p(a|z,y)  self.p_a
    p(x|a)    self.p_x   one per modality

A missing modality is replaced by zeros or completed by iterative sampling (eq. 11).
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from trainer.models.bound import Bound, average_classifier
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.nn.distributions import DiagonalNormal, Observation, standard_normal_log_prob


class SSHMVAE(nn.Module):
    completions: ClassVar = ("zeros", "iterative")
    has_classifier: ClassVar = True

    def __init__(self, make: Factory) -> None:
        super().__init__()
        self.q_a = make.gaussian("q(a|X)")
        self.q_y = make.categorical("q(y|a)")
        self.q_z = make.gaussian("q(z|a,y)")
        self.p_a = make.gaussian("p(a|z,y)")
        self.p_x = make.observations("p(x|a)")
        self.p_y = make.prior
        self.label = make.label

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """L(x,w,y) of eq. 8 if y is given, otherwise U(x,w) of eq. 9."""
        q_a = self.q_a(x)
        a = q_a.rsample()
        label = self.label(self.q_y(a=a), y)
        y, E = label.y, label.mean
        q_z = self.q_z(a=a, y=y)
        z = q_z.rsample()
        return Bound(
            log_p={
                **self.p_x.log_prob(x, a=a),
                self.p_a.name: E(self.p_a(z=z, y=y).log_prob(a)),
                "p(z)": E(standard_normal_log_prob(z)),
                "p(y)": E(self.p_y.log_prob(y)),
            },
            log_q={
                self.q_a.name: q_a.log_prob(a),
                self.q_z.name: E(q_z.log_prob(z)),
                self.q_y.name: label.log_q,
            },
            log_q_y=label.log_likelihood,
            posteriors={tuple(x): q_a},
        )

    def classify(self, x: Mapping[str, Tensor], samples: int = 0, q_a: DiagonalNormal | None = None) -> Tensor:
        """log q(y|x,w) = log E_q(a|x,w)[q(y|a)], `[R, B, K]`; at the mean of q(a|x,w) if samples is 0."""
        return average_classifier(lambda a: self.q_y(a=a), self.encode(x) if q_a is None else q_a, samples)

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal:
        return self.q_a(x)

    def decode(self, a: Tensor, modality: str) -> Observation:
        return self.p_x[modality](a=a)

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.encode(x).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        return self.decode(self.encode(x).mean, target).mean


CARD = ModelCard(
    name="sshmvae",
    title="SS-HMVAE",
    build=SSHMVAE,
    networks={
        "mnist": {  # appendix A.1.1
            "q(a|X)": "(X-D512BR-D512BR)-D512BR, D128",
            "q(y|a)": "a-D512BR, DK",
            "q(z|a,y)": "(a, y)-D512BR-D512BR, D64",
            "p(a|z,y)": "(z, y)-D512BR-D512BR, D128",
            "p(x|a)": "a-D512BR-D512BR, Dx",
        },
        "rgbd": {  # appendix A.1.2
            "q(a|X)": "(X-D1024BR), D1024",
            "q(y|a)": "a-D1024BR-Dropout0.5, DK",
            "q(z|a,y)": "(a-D1024BR, y-D1024BR), D1024",
            "p(a|z,y)": "(z-D1024BR, y-D1024BR), D1024",
            "p(x|a)": "a-D1024BR-D1024BR, Dx",
        },
    },
)
