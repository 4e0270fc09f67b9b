"""SDGM (Maaloe et al. 2016), for one modality: an auxiliary latent `a` connected to every other variable.

generative   p(x|a,y,z) p(a|z,y) p(z) p(y)
inference    q(a|x) q(z|x,y,a),  classifier q(y|x,a):  log q(y|x) = log E_q(a|x)[q(y|x,a)]

symbol      code       shape
x           x          modality -> [R, B, D], one modality
y           y          [R, B, K], or [K, R, B, K] for the sum over classes
a           a          [R, B, A]
z           z          [(K,) R, B, Z]
q(a|x)      self.q_a
q(y|x,a)    self.q_y
q(z|x,y,a)  self.q_z
p(a|z,y)    self.p_a
p(x|a,y,z)  self.p_x
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from pipeline.runtime.errors import UsageError
from trainer.models.bound import Bound, average_classifier
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.nn.distributions import DiagonalNormal, standard_normal_log_prob


class SDGM(nn.Module):
    completions: ClassVar = ()
    has_classifier: ClassVar = True

    def __init__(self, make: Factory) -> None:
        super().__init__()
        if len(make.names) != 1:
            raise UsageError("sdgm takes one modality", f"choose one: --modality {make.names[0]}")
        self.q_a = make.gaussian("q(a|X)")
        self.q_y = make.categorical("q(y|X,a)")
        self.q_z = make.gaussian("q(z|X,y,a)")
        self.p_a = make.gaussian("p(a|z,y)")
        self.p_x = make.observations("p(x|a,y,z)")
        self.p_y = make.prior
        self.label = make.label

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """The labelled bound if y is given, otherwise the unlabelled bound (Maaloe et al. 2016, eqs. 8 and 9)."""
        q_a = self.q_a(x)
        a = q_a.rsample()
        label = self.label(self.q_y(x, a=a), y)
        y, E = label.y, label.mean
        q_z = self.q_z(x, y=y, a=a)
        z = q_z.rsample()
        log_p_x = self.p_x.log_prob(x, a=a, y=y, z=z)
        return Bound(
            log_p={
                **{name: E(term) for name, term in log_p_x.items()},
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
        """log q(y|x) = log E_q(a|x)[q(y|x,a)], `[R, B, K]`; at the mean of q(a|x) if samples is 0."""
        return average_classifier(lambda a: self.q_y(x, a=a), self.q_a(x) if q_a is None else q_a, samples)

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.q_a(x).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        raise UsageError(f"sdgm sees a single modality, so it cannot generate {target}")


CARD = ModelCard(
    name="sdgm",
    title="SDGM",
    build=SDGM,
    networks={
        # Not in the appendix: modelled on the networks given there.
        "mnist": {
            "q(a|X)": "X-D512BR-D512BR, D128",
            "q(y|X,a)": "(X-D512BR-D512BR, a)-D512BR, DK",
            "q(z|X,y,a)": "(X-D512BR-D512BR, y, a)-D512BR, D64",
            "p(a|z,y)": "(z, y)-D512BR-D512BR, D128",
            "p(x|a,y,z)": "(a, y, z)-D512BR-D512BR, Dx",
        },
        "rgbd": {
            "q(a|X)": "X-D1024BR-D1024BR, D1024",
            "q(y|X,a)": "(X-D1024BR-D1024BR, a)-D1024BR-Dropout0.5, DK",
            "q(z|X,y,a)": "(X-D1024BR-D1024BR, y, a)-D1024BR, D1024",
            "p(a|z,y)": "(z-D1024BR, y-D1024BR), D1024",
            "p(x|a,y,z)": "(a, y, z)-D1024BR-D1024BR, Dx",
        },
    },
)
