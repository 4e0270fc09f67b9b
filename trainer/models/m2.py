"""M2 (Kingma et al. 2014): one variable x with a latent z and a label; SS-MVAE's bounds for a single modality.

    generative   p(x|z,y) p(z) p(y)
    inference    q(z|x,y),  classifier q(y|x)

    symbol    code       shape
    x         v          [R, B, D]
    y         y          [R, B, K], or [K, R, B, K] for the sum over classes
    z         z          [(K,) R, B, Z]
    q(y|x)    self.q_y
    q(z|x,y)  self.q_z
    p(x|z,y)  self.p_x

Given several modalities, its one variable is their concatenation [x;w] (table 2), with zeros for a missing one.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.models.bound import Bound
from trainer.models.card import ModelCard
from trainer.models.factory import Factory
from trainer.nn.distributions import DiagonalNormal, standard_normal_log_prob
from trainer.nn.labels import one_hot
from trainer.nn.presence import present_rows, where_present


class M2(nn.Module):
    completions: ClassVar = ("zeros",)
    has_classifier: ClassVar = True

    def __init__(self, make: Factory) -> None:
        super().__init__()
        self.modalities = make.names
        joint = make.concatenated()
        self.q_y = joint.categorical("q(y|X)")
        self.q_z = joint.gaussian("q(z|X,y)")
        self.p_x = joint.observations("p(x|z,y)")["x"]
        self.p_y = make.prior
        self.label = make.label

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """L(x,y) of eq. 4 if y is given, otherwise U(x) of eq. 5, for one modality."""
        v = self.concatenate(x)
        label = self.label(self.q_y(x=v), y)
        y, E = label.y, label.mean
        q_z = self.q_z(x=v, y=y)
        z = q_z.rsample()
        return Bound(
            log_p={
                self.p_x.name: E(self._log_p_x(x, v, z, y)),
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
        """log q(y|x), `[R, B, K]`."""
        return self.q_y(x=self.concatenate(x)).logits

    def _log_p_x(self, x: Mapping[str, Tensor], v: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """log p(x|z,y), summed over the elements of the modalities that a row has."""
        terms = torch.split(self.p_x(z=z, y=y).log_probs(v), [x[m].shape[-1] for m in self.modalities], dim=-1)
        return torch.stack(
            [where_present(present_rows(x, m), term.sum(-1)) for m, term in zip(self.modalities, terms, strict=True)]
        ).sum(0)

    def concatenate(self, x: Mapping[str, Tensor]) -> Tensor:
        """The modalities joined into the one variable, in the model's order."""
        return torch.cat([x[m] for m in self.modalities], dim=-1)

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        """The mean of q(z|x,y) at the most probable y."""
        return self.q_z(x=self.concatenate(x), y=self._most_probable(x)).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        """The target's part of the mean of p([x;w]|z,y)."""
        y = self._most_probable(x)
        joint = self.p_x(z=self.q_z(x=self.concatenate(x), y=y).mean, y=y).mean
        widths = [x[m].shape[-1] for m in self.modalities]
        return torch.split(joint, widths, dim=-1)[self.modalities.index(target)]

    def _most_probable(self, x: Mapping[str, Tensor]) -> Tensor:
        log_q = self.classify(x)
        return one_hot(log_q.argmax(-1), log_q.shape[-1])


CARD = ModelCard(
    name="m2",
    title="M2",
    build=M2,
    joins=True,
    networks={
        "mnist": {  # appendix A.1.1: SS-MVAE's networks
            "q(y|X)": "(X-D512BR-D512BR)-D512BR, DK",
            "q(z|X,y)": "(y, X-D512BR-D512BR)-D512BR, D64",
            "p(x|z,y)": "(z, y)-D512BR-D512BR, Dx",
        },
        "rgbd": {  # appendix A.1.2: SS-MVAE's networks
            "q(y|X)": "(X-D1024BR-D1024BR)-D1024BR-Dropout0.5, DK",
            "q(z|X,y)": "(y, X-D1024BR-D1024BR)-D1024BR, D1024",
            "p(x|z,y)": "(z, y)-D1024BR-D1024BR, Dx",
        },
    },
)
