"""What the image store asks of a frame, whatever its source."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.images.depth import Depth
from pipeline.images.resize import Bytes


class FramePixels(Protocol):
    """What was read of a frame: RGB [H, W, 3], depth [H, W], either of them None if the frame lacks it."""

    @property
    def rgb(self) -> Bytes | None: ...
    @property
    def depth(self) -> Depth | None: ...
    @property
    def corner(self) -> tuple[int, int] | None:
        """The crop's first pixel in the camera's picture, where it is known and was asked for."""


class Frame(Protocol):
    """One frame on disk, of any source; it travels to worker processes."""

    @property
    def id(self) -> str: ...
    @property
    def folder(self) -> Path:
        """The folder that messages in the store leave out of file names."""

    @property
    def files(self) -> Sequence[Path]:
        """The files from which it is made."""

    def read(self, *, corner: bool) -> FramePixels:
        """Decodes it.

        Raises:
            DataError: one of its files cannot be used.
        """
