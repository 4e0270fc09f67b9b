"""The models, by their names on the command line."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor, nn

from trainer.models.bound import Bound
from trainer.models.jmvae import JMVAE
from trainer.models.jmvae_kl import JMVAEkl
from trainer.models.m2 import M2
from trainer.models.sdgm import SDGM
from trainer.models.sshmvae import SSHMVAE
from trainer.models.sshmvae_kl import SSHMVAEkl
from trainer.models.ssmvae import SSMVAE
from trainer.nn.distributions import DiagonalNormal, Observation

__all__ = ["MODELS", "Bound", "Classifier", "LatentModel", "Model"]


class Model(Protocol):
    """A stack of R replicas of one model. `x` maps each modality to `[R, B, D]`.

    Attributes:
        completions: its means against a missing modality, the one to report first in front: `zeros`, `iterative`
            (eq. 11), `encoders` (it takes any subset itself).
        has_classifier: whether it is a `Classifier`; if not it learns from no label.
    """

    completions: ClassVar[tuple[str, ...]]
    has_classifier: ClassVar[bool]

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """The labelled bound where y (one-hot, `[R, B, K]`) is given, the unlabelled one where it is not."""
        ...


class Classifier(Model, Protocol):
    @property
    def encoders(self) -> nn.Module:
        """Those of single modalities, in a model whose completions have `encoders`; others need not have it."""
        ...

    def classify(self, x: Mapping[str, Tensor], samples: int = 0) -> Tensor:
        """log q(y|x), `[R, B, K]`; latent variables at their mean where samples is 0, else averaged over samples."""
        ...


class LatentModel(Model, Protocol):
    """A model with a shared latent variable that can be inferred and decoded: what iterative sampling needs."""

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal: ...

    def decode(self, latent: Tensor, modality: str, /) -> Observation: ...


MODELS: dict[str, type[nn.Module]] = {
    "jmvae": JMVAE,
    "jmvae-kl": JMVAEkl,
    "m2": M2,
    "sdgm": SDGM,
    "ssmvae": SSMVAE,
    "sshmvae": SSHMVAE,
    "sshmvae-kl": SSHMVAEkl,
}
