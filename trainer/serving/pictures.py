"""Pictures on pages: those of the rows of a shard, those that people give, and values that are images themselves.

How picture files are read belongs to stage 1, so it is handed over as an object of this protocol.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


class Pictures(Protocol):
    """What stage 1 knows of pictures."""

    titles: Mapping[str, str]
    """Of the modalities that are taken as pictures, the name of the camera for people, such as `RGB`."""

    def title(self, modality: str) -> str:
        """The name of a modality for people: its camera's, or its own."""

    def size(self, path: Path) -> tuple[int, int]:
        """Width and height of a picture file, from its header.

        Raises:
            DataError: it is none.
        """

    def prepared(self, modality: str, path: Path) -> Pixels:
        """A picture file as the model's encoder sees it, `[H, W, 3]`.

        Raises:
            DataError: it cannot be read, or is not of this modality.
        """

    def stored(self, modality: str, ids: Sequence[str]) -> list[Pixels | None]:
        """The pictures of rows, `[H, W, 3]` each; None for those that are not at hand."""


def of_values(values: NDArray[np.float32], shape: Sequence[int]) -> Pixels:
    """The values `[D]` of a modality that is an image, as its pixels; 1 is white."""
    grey = (np.clip(values, 0, 1) * 255).round().astype(np.uint8).reshape(shape)
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)


def png(pixels: Pixels) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def data_uri(pixels: Pixels) -> str:
    """A picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
