"""The card at the end of each model's file: everything the rest of the program knows about that model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Networks = Mapping[str, str]  # by distribution, in template notation: {"q(a|X)": "(X-D512BR)-D512BR, D128"}


@dataclass(frozen=True)
class ModelCard:
    """What there is to know about one model.

    Attributes:
        name: the name on the command line and in settings.
        title: the name in tables, figures and reports.
        build: the class. Its `completions` are the ways it handles a missing modality (the first is reported first);
            its `has_classifier` says whether labels take part in training.
        has_beta: whether its bound includes the divergence of eq. 12, and so has a beta (eq. 13).
        joins: whether it takes several modalities as one variable, their concatenation, without a branch for each.
        networks: its networks, by column of the paper's appendix ("mnist", "rgbd").
        method: how it is trained and loaded, a `trainer.training.method.Method`; None for the training loop.
        presets: by preset, the settings that apply to this model only.
        accepts: the names of the settings it uses ("cotraining.cost" for one in a group); None if it uses all.
    """

    name: str
    title: str
    build: Callable[..., Any]
    has_beta: bool = False
    joins: bool = False
    networks: Mapping[str, Networks] = field(default_factory=dict)
    method: Any = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    accepts: frozenset[str] | None = None

    @property
    def completions(self) -> tuple[str, ...]:
        """How the model completes a missing modality: `zeros`, `iterative`, `encoders`, `views`."""
        return tuple(getattr(self.build, "completions"))  # noqa: B009

    @property
    def learns_labels(self) -> bool:
        """Whether labels take part in training; otherwise only the linear probe on the latents uses them."""
        return bool(getattr(self.build, "has_classifier"))  # noqa: B009

    @property
    def is_generative(self) -> bool:
        """Whether the model maximises a bound, and therefore has an alpha, an ELBO and a latent space."""
        return self.method is None
