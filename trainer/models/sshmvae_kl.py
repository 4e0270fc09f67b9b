"""SS-HMVAE-kl (section 3.5.2): SS-HMVAE plus one encoder q(a|x) per modality, trained jointly.

    generative   p(X|a) p(a|z,y) p(z) p(y),  log p(X|a) = sum over modalities of log p(x|a)
    inference    q(a|X) q(z|a,y),  classifier q(y|a)
    encoders     q(a|x), one per modality, kept near q(a|X) by eq. 12:  log q(y|x) = log E_q(a|x)[q(y|a)]

    symbol    code           shape
    X         x              modality -> [R, B, D]
    y         y              [R, B, K], or [K, R, B, K] for the sum over classes
    a         a              [R, B, A]
    z         z              [(K,) R, B, Z]
    q(a|X)    self.q_a
    q(a|x_S)  self.posterior q(a|X), or the encoders combined where modalities are missing
    q(a|x)    self.q_a_each  one per modality
    q(y|a)    self.q_y
    q(z|a,y)  self.q_z
    p(a|z,y)  self.p_a
    p(x|a)    self.p_x       one per modality

Rows that lack modalities, and subsets of several of more than two, are encoded by their encoders combined
(`trainer.models.posterior`); a row's bound sums over the modalities that it has.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.distributions import kl_divergence

from trainer.models.bound import Bound, average_classifier
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.models.posterior import Posterior
from trainer.nn.batch_norm import only_rows
from trainer.nn.distributions import DiagonalNormal, Observation, standard_normal_log_prob
from trainer.nn.presence import any_present, beside_others, where_present


class SSHMVAEkl(nn.Module):
    completions: ClassVar = ("encoders",)
    has_classifier: ClassVar = True

    def __init__(self, make: Factory) -> None:
        super().__init__()
        self.q_a = make.joint("q(a|X)")
        self.q_a_each = make.gaussians("q(a|x)")
        self.posterior = Posterior(make.written("q(a|X)"), self.q_a, self.q_a_each, make.pooling)
        self.q_y = make.categorical("q(y|a)")
        self.q_z = make.gaussian("q(z|a,y)")
        self.p_a = make.gaussian("p(a|z,y)")
        self.p_x = make.observations("p(x|a)")
        self.p_y = make.prior
        self.label = make.label

    @property
    def encoders(self) -> nn.Module:
        return self.q_a_each

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """L(x,w,y) of eq. 8 if y is given, otherwise U(x,w) of eq. 9; and the terms of eq. 12."""
        q_a_each = self.posterior.experts(x)
        q_a = self.posterior(x, q_a_each)
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
                self.posterior.name: q_a.log_prob(a),
                self.q_z.name: E(q_z.log_prob(z)),
                self.q_y.name: label.log_q,
            },
            log_q_y=label.log_likelihood,
            divergence={  # eq. 12
                self.q_a_each[m].name: where_present(beside_others(x, m), kl_divergence(q_a, q))
                for m, q in q_a_each.items()
            },
            posteriors={tuple(x): q_a} | self.posterior.of_singles(x, q_a_each),
        )

    def classify(self, x: Mapping[str, Tensor], samples: int = 0, q_a: DiagonalNormal | None = None) -> Tensor:
        """log q(y|x) = log E_q(a|x)[q(y|a)], `[R, B, K]`, for the modalities in x; at the mean if samples is 0."""
        q_a = self.encode(x) if q_a is None else q_a
        with only_rows(any_present(x)):
            return average_classifier(lambda a: self.q_y(a=a), q_a, samples)

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal:
        """q(a|X) of rows that have every modality, otherwise the combined encoders of those they have."""
        return self.posterior(x)

    def decode(self, a: Tensor, modality: str) -> Observation:
        return self.p_x[modality](a=a)

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.encode(x).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        return self.decode(self.encode(x).mean, target).mean


CARD = ModelCard(
    name="sshmvae-kl",
    title="SS-HMVAE-kl",
    build=SSHMVAEkl,
    has_beta=True,
    networks={
        "mnist": {  # appendix A.1.1
            "q(a|X)": "(X-D512BR-D512BR)-D512BR, D128",
            "q(y|a)": "a-D512BR, DK",
            "q(z|a,y)": "(a, y)-D512BR-D512BR, D64",
            "p(a|z,y)": "(z, y)-D512BR-D512BR, D128",
            "p(x|a)": "a-D512BR-D512BR, Dx",
            "q(a|x)": "x-D512BR-D512BR, D128",
        },
        "rgbd": {  # appendix A.1.2
            "q(a|X)": "(X-D1024BR), D1024",
            "q(y|a)": "a-D1024BR-Dropout0.5, DK",
            "q(z|a,y)": "(a-D1024BR, y-D1024BR), D1024",
            "p(a|z,y)": "(z-D1024BR, y-D1024BR), D1024",
            "p(x|a)": "a-D1024BR-D1024BR, Dx",
            "q(a|x)": "x-D1024BR-D1024BR, D1024",
        },
    },
)
