"""The card that ends a model's file: everything the rest of the program knows about that model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Networks = Mapping[str, str]  # template notation by the distribution's name: {"q(a|X)": "(X-D512BR)-D512BR, D128"}


@dataclass(frozen=True)
class ModelCard:
    """One model.

    Attributes:
        name: on the command line and in settings.
        title: in tables, figures and reports.
        build: the class. Its `completions` say how it copes with a missing modality (the first is reported first), its
            `has_classifier` whether labels take part in training.
        has_beta: whether its bound comes with the divergence of eq. 12, and so with beta (eq. 13).
        networks: by column of the paper's appendix ("mnist", "rgbd").
        method: how it is trained and loaded, a `trainer.training.method.Method`; None for the training loop.
        presets: by preset, settings that are this model's alone.
        accepts: names of the settings that mean something to it ("cotraining.cost" for one of a group); None for all.
    """

    name: str
    title: str
    build: Callable[..., Any]
    has_beta: bool = False
    networks: Mapping[str, Networks] = field(default_factory=dict)
    method: Any = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    accepts: frozenset[str] | None = None

    @property
    def completions(self) -> tuple[str, ...]:
        """How the model stands in for a missing modality: `zeros`, `iterative`, `encoders`, `views`."""
        return tuple(getattr(self.build, "completions"))  # noqa: B009

    @property
    def learns_labels(self) -> bool:
        """Whether labels take part in training; for the others they only serve the probe that reads the latents."""
        return bool(getattr(self.build, "has_classifier"))  # noqa: B009

    @property
    def is_generative(self) -> bool:
        """Whether the model maximises a bound, and so has alpha, an ELBO and a latent space."""
        return self.method is None
