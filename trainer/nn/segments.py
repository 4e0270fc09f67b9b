"""A batch in two segments: labelled rows first, then unlabelled ones, in one pass through the networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Segments:
    """Where a batch of labelled and then unlabelled rows divides, and what is known of the labelled ones.

    Attributes:
        y: the labels of the labelled rows, one-hot `[R, L, K]`.
    """

    y: Tensor

    @property
    def labelled(self) -> int:
        """L."""
        return self.y.shape[-2]

    def of_observed_class(self, x: Tensor) -> Tensor:
        """Of `[K, R, B, F]`, the labelled rows as they are for the class that was observed, `[R, L, F]`."""
        observed = self.y.argmax(-1)[None, :, :, None].expand(-1, -1, -1, x.shape[-1])
        return x[:, :, : self.labelled].gather(0, observed).squeeze(0)


def segments_of(y: Tensor | None, batch: int) -> Segments | None:
    """The segments of a batch whose first rows have the labels y; None if it is of one piece."""
    return Segments(y) if y is not None and 0 < y.shape[-2] < batch else None


@contextmanager
def in_segments(model: nn.Module, segments: Segments | None) -> Iterator[None]:
    """A context in which a model's batches are in two segments; of one piece if `segments` is None."""
    modules = [module for module in model.modules() if hasattr(module, "segments")] if segments is not None else []
    for module in modules:
        module.segments = segments  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in modules:
            module.segments = None  # type: ignore[assignment]
