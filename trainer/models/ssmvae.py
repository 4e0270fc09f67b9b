"""SS-MVAE (section 3.3): M2 for several modalities.

    generative   p(X|z,y) p(z) p(y),  log p(X|z,y) = sum over modalities of log p(x|z,y)
    inference    q(z|X,y),  classifier q(y|X)

    symbol    code       shape
    X         x          modality -> [R, B, D]
    y         y          [R, B, K], or [K, R, B, K] for the sum over classes
    z         z          [(K,) R, B, Z]
    q(y|X)    self.q_y
    q(z|X,y)  self.q_z
    p(x|z,y)  self.p_x   one per modality

A missing modality is replaced by zeros: no latent variable precedes the classifier that it could be sampled from.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from trainer.models.bound import Bound
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.nn.distributions import DiagonalNormal, standard_normal_log_prob
from trainer.nn.labels import one_hot


class SSMVAE(nn.Module):
    completions: ClassVar = ("zeros",)
    has_classifier: ClassVar = True

    def __init__(self, make: Factory) -> None:
        super().__init__()
        self.q_y = make.categorical("q(y|X)")
        self.q_z = make.gaussian("q(z|X,y)")
        self.p_x = make.observations("p(x|z,y)")
        self.p_y = make.prior
        self.label = make.label

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """L(x,w,y) of eq. 4 if y is given, otherwise U(x,w) of eq. 5."""
        label = self.label(self.q_y(x), y)
        y, E = label.y, label.mean
        q_z = self.q_z(x, y=y)
        z = q_z.rsample()
        log_p_x = self.p_x.log_prob(x, z=z, y=y)
        return Bound(
            log_p={
                **{name: E(term) for name, term in log_p_x.items()},
                "p(z)": E(standard_normal_log_prob(z)),
                "p(y)": E(self.p_y.log_prob(y)),
            },
            log_q={
                self.q_z.name: E(q_z.log_prob(z)),
                self.q_y.name: label.log_q,
            },
            log_q_y=label.log_likelihood,
        )

    def classify(self, x: Mapping[str, Tensor], samples: int = 0, q_a: DiagonalNormal | None = None) -> Tensor:
        """log q(y|x,w), `[R, B, K]`."""
        return self.q_y(x).logits

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        """The mean of q(z|X,y) at the most probable y."""
        return self.q_z(x, y=self._most_probable(x)).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        y = self._most_probable(x)
        return self.p_x[target](z=self.q_z(x, y=y).mean, y=y).mean

    def _most_probable(self, x: Mapping[str, Tensor]) -> Tensor:
        log_q = self.classify(x)
        return one_hot(log_q.argmax(-1), log_q.shape[-1])


CARD = ModelCard(
    name="ssmvae",
    title="SS-MVAE",
    build=SSMVAE,
    networks={
        "mnist": {  # appendix A.1.1
            "q(y|X)": "(X-D512BR-D512BR)-D512BR, DK",
            "q(z|X,y)": "(y, X-D512BR-D512BR)-D512BR, D64",
            "p(x|z,y)": "(z, y)-D512BR-D512BR, Dx",
        },
        "rgbd": {  # appendix A.1.2
            "q(y|X)": "(X-D1024BR-D1024BR)-D1024BR-Dropout0.5, DK",
            "q(z|X,y)": "(y, X-D1024BR-D1024BR)-D1024BR, D1024",
            "p(x|z,y)": "(z, y)-D1024BR-D1024BR, Dx",
        },
    },
)
