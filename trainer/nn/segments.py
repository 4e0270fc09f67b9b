"""A batch in two segments: labelled rows first, then unlabelled ones, in one pass through the networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


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


_current = ContextVar[Segments | None]("segments", default=None)


@contextmanager
def in_segments(segments: Segments | None) -> Iterator[None]:
    """A context in which the batches of all networks are in two segments; of one piece if `segments` is None."""
    before = _current.set(segments)
    try:
        yield
    finally:
        _current.reset(before)


def current_segments() -> Segments | None:
    """The segments of the batches that networks are given just now; None if they are of one piece."""
    return _current.get()
