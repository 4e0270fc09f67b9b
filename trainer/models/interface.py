"""What the training loop, evaluation and generation ask of a model."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor, nn

from trainer.models.bound import Bound
from trainer.nn.distributions import DiagonalNormal, Observation


class Model(Protocol):
    """A stack of R replicas of one model. `x` maps each modality to `[R, B, D]`.

    Attributes:
        completions: how it stands in for a missing modality, the one to report first in front: `zeros`, `iterative`
            (eq. 11), `encoders` (it takes any subset itself).
        has_classifier: whether it is a `Classifier`; if not, it learns from no label.
    """

    completions: ClassVar[tuple[str, ...]]
    has_classifier: ClassVar[bool]

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """The labelled bound where y (one-hot, `[R, B, K]`) is given, the unlabelled one where it is not."""
        ...

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        """The mean `[R, B, Z]` of the latent variable that is shown in pictures, given every modality or, in a model
        with encoders, any subset.
        """
        ...

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        """The mean `[R, B, D]` of the target modality, given what x says about the latent variables."""
        ...


class Classifier(Model, Protocol):
    """A model that learns from labels."""

    @property
    def encoders(self) -> nn.Module:
        """The single-modality encoders of a model whose completions include `encoders`; others need not have it."""
        ...

    def classify(self, x: Mapping[str, Tensor], samples: int = 0) -> Tensor:
        """log q(y|x), `[R, B, K]`; latent variables at their mean if samples is 0, otherwise averaged over samples."""
        ...


class LatentModel(Model, Protocol):
    """A model with a shared latent variable that can be inferred and decoded: what iterative sampling needs."""

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal: ...

    def decode(self, latent: Tensor, modality: str, /) -> Observation: ...
