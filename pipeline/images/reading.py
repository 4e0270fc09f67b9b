"""Reads one picture as a person has it: colour as 8-bit RGB, depth as numbers with 0 where there is none.

Colour may be grey, have a palette or an alpha channel, or lie on its side (EXIF). Depth has 16 bits or is a float;
anything with 8 bits or with colours is a picture made for looking at, whose distances are lost, and is refused.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap
from PIL import Image, ImageOps

from pipeline.images.resize import Bytes
from pipeline.runtime.errors import DataError

MOST_PIXELS = 2**26  # per picture: more than any camera of a robot has
COLOUR_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
DEPTH_FORMATS = ("PNG", "TIFF", "PPM", "JPEG", "BMP", "WEBP")  # the last three so that the refusal can say why
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # modes with more than 8 bits per pixel
_DEPTH_HINT = "take the camera's own depth: one channel of 16 bits or floats (PNG, TIFF, .npy), 0 where it is missing"
Depths = npt.NDArray[np.float32]


def read_colour(path: Path) -> Bytes:
    """Reads a colour picture, uint8 `[H, W, 3]`.

    Raises:
        DataError: the file is missing, damaged, too large, or not a picture.
    """
    return colour_of(_open(path, COLOUR_FORMATS), str(path))


def read_depth(path: Path) -> Depths:
    """Reads a depth picture, or an array from `.npy`: float32 `[H, W]`, 0 where it is missing.

    Raises:
        DataError: the file is missing, damaged or too large, or has 8 bits or colours instead of depth.
    """
    if path.suffix.lower() == ".npy":
        return depth_of(_load(path), str(path))
    return depth_of(_open(path, DEPTH_FORMATS), str(path))


def colour_of(picture: Image.Image | npt.NDArray[np.generic], name: str) -> Bytes:
    """A colour picture or array as uint8 `[H, W, 3]`; `name` stands for it in messages.

    Transparent pixels become black, and of 16 bits of grey the higher 8 are kept.

    Raises:
        DataError: it is no such picture.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            shape = f"{picture.dtype} {picture.shape}"
            raise DataError(f"{name}: is {shape}, but a colour picture is uint8 [H, W, 3]", "RGB, not BGR")
        return picture.astype(np.uint8, copy=False)
    image = ImageOps.exif_transpose(picture)
    if image.mode in _WIDE:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise DataError(f"{name}: its values are not those of 16 bits of grey, so it is no colour picture")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{name}: holds floats, so it is no colour picture", "perhaps it is depth")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def depth_of(picture: Image.Image | npt.NDArray[np.generic], name: str) -> Depths:
    """A depth picture or array as float32 `[H, W]`, 0 where it is 0 or not finite; `name` stands for it in messages.

    Raises:
        DataError: it has 8 bits or colours, or values below 0.
    """
    if isinstance(picture, np.ndarray):
        values = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    else:
        if picture.mode not in (*_WIDE, "F"):
            raise DataError(f"{name}: {_not_depth(picture)}", _DEPTH_HINT)
        values = np.asarray(picture)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "iuf" or values.dtype.itemsize < 2:
        kind = f"{values.dtype} {values.shape}"
        raise DataError(f"{name}: is {kind}, but depth is [H, W], with 16 bits or floats", _DEPTH_HINT)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which is missing
        depth = values.astype(np.float32)
    depth[~np.isfinite(depth)] = 0
    if depth.min() < 0:
        raise DataError(f"{name}: holds {depth.min():g}, and a distance is not negative", _DEPTH_HINT)
    return depth


def _not_depth(picture: Image.Image) -> str:
    """Why a picture of 8 bits per channel is not depth."""
    bands = picture.getbands()
    if len(bands) == 1 and picture.mode != "P":
        return "has 8 bits per pixel, so it was made for looking at, and its distances are lost"
    pixels = np.asarray(picture.convert("RGB"))
    if (pixels == pixels[..., :1]).all():
        return "is an 8-bit grey picture stored as colours, and its distances are lost"
    return "is in colours: either depth that was coloured for looking at, or the colour picture in the depth's place"


def _open(path: Path, formats: tuple[str, ...]) -> Image.Image:
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it declares {image.width} x {image.height} pixels")
            image.load()
            return image
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing") from None
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        known = ", ".join(formats)
        raise DataError(f"{path}: not a readable picture: {error}", f"formats that are read: {known}") from error


def _load(path: Path) -> npt.NDArray[np.generic]:
    try:
        # Mapped first: a header may declare more than the machine's memory.
        values: npt.NDArray[np.generic] = open_memmap(path, mode="r")  # which unpickles nothing
        if values.size > MOST_PIXELS:
            raise ValueError(f"it declares {values.size:,} values")
        return np.array(values)
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing") from None
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(f"{path}: not a readable array: {error}", "numpy.save writes one") from error
