"""What the training loop, evaluation and generation require of a model."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor, nn

from trainer.models.bound import Bound
from trainer.nn.distributions import DiagonalNormal, Observation


class Model(Protocol):
    """A stack of R replicas of one model. `x` maps each modality to `[R, B, D]`.

    Attributes:
        completions: the ways it completes a missing modality, in the order they are reported: `zeros`, `iterative`
            (eq. 11), `encoders` (the model accepts any subset).
        has_classifier: whether it is a `Classifier`; if not, it does not learn from labels.
    """

    completions: ClassVar[tuple[str, ...]]
    has_classifier: ClassVar[bool]

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        """The labelled bound of the first L rows, and the unlabelled bound of the others.

        Args:
            y: the labels of the first L rows, one-hot `[R, L, K]`; None if L is 0. Unless all rows are labelled, batch
                normalisation has to know where they end (`trainer.nn.segments`).
        """
        ...

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        """The mean `[R, B, Z]` of the latent variable that figures show, given all modalities (or any subset, if the
        model has encoders).
        """
        ...

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        """The mean `[R, B, D]` of the target modality, given the latent variables inferred from x."""
        ...


class Classifier(Model, Protocol):
    """A model that learns from labels."""

    @property
    def encoders(self) -> nn.Module:
        """The single-modality encoders; only models whose completions include `encoders` need to have them."""
        ...

    def classify(self, x: Mapping[str, Tensor], samples: int = 0, q_a: DiagonalNormal | None = None) -> Tensor:
        """log q(y|x), `[R, B, K]`; averaged over points of the latent variables, or at their mean if samples is 0.

        Args:
            q_a: q(a|x), if it is known: one of a bound's `posteriors`.
        """
        ...


class LatentModel(Model, Protocol):
    """A model with a shared latent variable that can be inferred and decoded, as iterative sampling needs."""

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal: ...

    def decode(self, latent: Tensor, modality: str, /) -> Observation: ...
