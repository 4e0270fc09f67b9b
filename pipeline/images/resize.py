"""Turns crops of any shape into squares: pure functions on arrays, without loops over pixels."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)
SIZE = 148  # pixels per side, the paper's


@dataclass(frozen=True)
class _Fit:
    """Where the scaled crop lies inside the square."""

    height: int
    width: int
    top: int
    left: int


def _fit(height: int, width: int, size: int) -> _Fit:
    if min(height, width, size) < 1:
        raise ValueError(f"cannot fit a {height} x {width} image into {size} x {size}")
    longer = max(height, width)
    # Integer rounding, half up: the same on every platform.
    h, w = (max(1, (2 * side * size + longer) // (2 * longer)) for side in (height, width))
    return _Fit(h, w, (size - h) // 2, (size - w) // 2)


def resize_rgb(rgb: Bytes, size: int = SIZE) -> Bytes:
    """Resizes [H, W, 3] to [size, size, 3]: the longer side is scaled to `size`, the shorter one centred and extended.

    Pillow's bilinear filter is used, whose support grows as the image shrinks (antialiasing). The extension repeats the
    border.
    """
    fit = _fit(rgb.shape[0], rgb.shape[1], size)
    if (fit.height, fit.width) == rgb.shape[:2]:
        scaled = rgb
    else:
        scaled = np.asarray(Image.fromarray(rgb).resize((fit.width, fit.height), Image.Resampling.BILINEAR))
    out = np.empty((size, size, 3), np.uint8)
    rows, columns = slice(fit.top, fit.top + fit.height), slice(fit.left, fit.left + fit.width)
    out[rows, columns] = scaled
    out[rows, : columns.start] = scaled[:, :1]
    out[rows, columns.stop :] = scaled[:, -1:]
    out[: rows.start] = out[rows.start]
    out[rows.stop :] = out[rows.stop - 1]
    return out


@lru_cache(maxsize=256)
def _sources(height: int, width: int, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The source row of every target row and the source column of every target column; the border is repeated."""
    fit = _fit(height, width, size)

    def along(length: int, scaled: int, start: int) -> npt.NDArray[np.intp]:
        target = np.clip(np.arange(size, dtype=np.intp) - start, 0, scaled - 1)
        source: npt.NDArray[np.intp] = (2 * target + 1) * length // (2 * scaled)
        source.flags.writeable = False
        return source

    return along(height, fit.height, fit.top), along(width, fit.width, fit.left)


def resize_depth(depth: npt.NDArray[T], size: int = SIZE) -> npt.NDArray[T]:
    """Resizes [H, W] or [H, W, C] to [size, size(, C)] with the geometry of `resize_rgb`, copying the nearest pixel.

    No value is invented: no depth appears between an object and its background, and a hole stays a hole.
    """
    rows, columns = _sources(*depth.shape[:2], size)
    return depth.take(columns, axis=1).take(rows, axis=0)
