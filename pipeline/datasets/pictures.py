"""Decoding a person's own pictures: colour as 8-bit RGB, depth as the camera's own numbers.

Colour may be grey, with a palette, with transparency (laid over white) or have 16 bits per channel, colour or grey (the
high byte counts, so that 65535 is white), and is turned upright as its EXIF data say. Depth is 16-bit or
floating-point, in any unit; 0, 65535 in 16 bits, NaN and whatever is not a positive finite number are missing. What
was made for viewing is refused: its distances are lost. Each picture is turned by its own EXIF data: a colour picture
with such data and a depth picture without do not lie on one another, and need not, since each is encoded by itself.
"""

import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.runtime.arrays import npy_shape, read_npy
from pipeline.runtime.contents import other_kind_of
from pipeline.runtime.errors import DataError

Colour = NDArray[np.uint8]
Depth = NDArray[np.uint16] | NDArray[np.float32]

MOST_PIXELS = 2**26  # accepted per picture: more than a phone's, less than would fill a worker's memory
COLOUR_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
DEPTH_SUFFIXES = COLOUR_SUFFIXES | {".npy"}  # a JPEG is no depth, but is refused with the reason
UNCOMPRESSED = frozenset({".npy", ".bmp", ".tif", ".tiff"})  # files whose size may stay when their content changes
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_DEEP_GREY = ("I", "F")  # the beginnings of Pillow's modes with one channel of more than 8 bits
_BRIGHT = 2**14  # what grey of 16 bits must reach somewhere, or the high byte would show next to nothing
_ORIENTATION = 0x0112  # EXIF's tag
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError)
_VIEWING = "export the depth as the camera gives it, with 16 bits or as floating-point numbers (PNG, TIFF, .npy)"


class WrongKindError(DataError):
    """A readable picture of another kind than its place says, which most often is a mistake about many pictures."""


class Frame(NamedTuple):
    """What was read of a row: colour [H, W, 3] and depth [H, W], or None for what it lacks."""

    rgb: Colour | None
    depth: Depth | None
    corner: tuple[int, int] | None = None


@dataclass(frozen=True)
class PictureRow:
    """The picture files of one row; `folder` is what messages leave out of file names."""

    id: str
    folder: Path
    rgb: Path | None
    depth: Path | None

    @property
    def files(self) -> Sequence[Path]:
        return [path for path in (self.rgb, self.depth) if path is not None]

    def read(self, *, corner: bool) -> Frame:  # noqa: ARG002
        """Decodes it.

        Raises:
            WrongKindError: a picture is of another kind than its place says.
            DataError: a file cannot be read.
        """
        return Frame(
            None if self.rgb is None else read_colour(self.rgb), None if self.depth is None else read_depth(self.depth)
        )


def read_colour(path: Path) -> Colour:
    """Reads a colour picture, uint8 `[H, W, 3]`, upright.

    Raises:
        WrongKindError: it looks like depth.
        DataError: it cannot be read.
    """
    with _opened(path) as image:
        return colour_of(image, str(path))


def colour_of(picture: Image.Image | NDArray[Any], name: str) -> Colour:
    """A colour picture or array as `read_colour` gives it; messages call it `name`.

    Raises:
        WrongKindError: it looks like depth.
        DataError: it is an array that is not uint8 `[H, W, 3]`, or its numbers are no colours.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise DataError(
                f"{name}: is {picture.dtype} {picture.shape}, but a colour picture is uint8 [height, width, 3]",
                "RGB, not BGR",
            )
        return picture
    if picture.mode.startswith(_DEEP_GREY):
        return _grey(np.asarray(ImageOps.exif_transpose(picture)), name)
    upright = ImageOps.exif_transpose(picture)
    if "transparency" in upright.info or upright.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        with_alpha = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", with_alpha.size, "white"), with_alpha)
    return np.array(upright.convert("RGB"))


def _grey(values: NDArray[Any], name: str) -> Colour:
    """Grey of 16 bits as colour.

    Raises:
        WrongKindError: it is so dark that it is depth or has fewer bits.
        DataError: it is not of 16 bits.
    """
    hint = "look whether the folders or columns are swapped; scale grey pictures to 8 bits, or to the whole of 16 bits"
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        kind = "floating-point numbers" if values.dtype.kind == "f" else "whole numbers outside 0..65535"
        raise DataError(f"{name}: holds {kind}, and nothing says which of them is white", hint)
    if 0 < values.max() < _BRIGHT:
        raise WrongKindError(
            f"{name}: has one channel of 16 bits that nowhere exceeds {values.max()}: it looks like depth in the "
            "colour picture's place, or like a camera of fewer bits, and would be nearly black",
            hint,
        )
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)


class PictureFacts(NamedTuple):
    """What a colour picture's header says, without its pixels.

    `size` is width and height, upright; `turned` says whether EXIF data turn it, `deep` whether it has 16 bits per
    channel, of which the high byte is kept.
    """

    size: tuple[int, int]
    turned: bool
    deep: bool


def picture_facts(path: Path) -> PictureFacts:
    """Reads a picture's header.

    Raises:
        DataError: it cannot be read.
    """
    if path.suffix.lower() == ".npy":
        shape = _array_shape(path)
        return PictureFacts((shape[1], shape[0]) if len(shape) > 1 else (0, 0), False, False)
    with _opened(path, load=False) as image:
        tiles: list[Any] = list(getattr(image, "tile", []))  # before EXIF is looked for, which may empty it
        deep = image.mode.startswith(_DEEP_GREY) or any(";16" in str(tile[3]) for tile in tiles)
        orientation = image.getexif().get(_ORIENTATION, 1)
        size = image.size[::-1] if orientation in (5, 6, 7, 8) else image.size
        return PictureFacts(size, orientation in range(2, 9), deep)


def read_depth(path: Path) -> Depth:
    """Reads a depth picture `[H, W]`: uint16, or float32 if it is no 16-bit one; 0 = missing.

    Raises:
        WrongKindError: it has 8 bits or several channels.
        DataError: it cannot be read.
    """
    if path.suffix.lower() == ".npy":
        _array_shape(path)  # refuses what is too large before it is read
        return depth_of(read_npy(path), str(path))
    with _opened(path) as image:
        return depth_of(image, str(path))


def depth_of(picture: Image.Image | NDArray[Any], name: str) -> Depth:
    """A depth picture or array `[H, W]` or `[H, W, 1]`, as `read_depth` gives it; messages call it `name`.

    Raises:
        WrongKindError: it has 8 bits or several channels.
        DataError: it is not an array of numbers of this shape.
    """
    values = picture if isinstance(picture, np.ndarray) else np.array(ImageOps.exif_transpose(picture))
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim == 3 and values.shape[2] in (2, 3, 4):
        colours = values[..., : 3 if values.shape[2] > 2 else 1]
        if (colours == colours[..., :1]).all():
            cause = "it is a grey picture of depth, made for viewing"
        else:
            cause = "either depth was coloured for viewing, or the colour picture lies in the depth's place"
        raise WrongKindError(f"{name}: has {values.shape[2]} channels, but depth has one: {cause}", _VIEWING)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise DataError(f"{name}: holds {values.dtype} of the shape {values.shape}, not depth as [height, width]")
    if values.dtype.itemsize == 1:
        raise WrongKindError(
            f"{name}: has 8 bits per pixel, too few for depth: the usual cause is a picture made for viewing", _VIEWING
        )
    if values.dtype.kind in "iu" and values.max() <= np.iinfo(np.uint16).max:
        depth = np.asarray(np.maximum(values, 0), np.uint16)
        depth[depth == np.iinfo(np.uint16).max] = 0  # saturated: a mark of nothing seen, or beyond what 16 bits hold
        return depth
    with np.errstate(over="ignore"):
        floats = values.astype(np.float32)
    floats[~(np.isfinite(floats) & (floats > 0))] = 0
    return floats


def _array_shape(path: Path) -> tuple[int, ...]:
    shape = npy_shape(path)
    if len(shape) > 1 and shape[0] * shape[1] > MOST_PIXELS:
        raise DataError(f"{path}: has {shape[1]} x {shape[0]} values, more than a camera's picture")
    return shape


@contextmanager
def _opened(path: Path, load: bool = True) -> Iterator[Image.Image]:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # to open a pipe would wait for ever
            raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is not a file")
        # The warnings are of oddities that do not keep Pillow from reading it.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it declares {image.width} x {image.height} pixels")
            if load:
                image.load()
            yield image
    except FileNotFoundError as error:
        missing = "is a link that leads nowhere" if path.is_symlink() else "the file is missing"
        raise DataError(f"{path}: {missing}") from error
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read: permission is denied", "check its permissions") from error
    except _UNREADABLE as error:
        other = other_kind_of(path) if isinstance(error, UnidentifiedImageError) else None
        reason = _reason(path, error) if other is None else f"it is {other.what}"
        hint = "copy or export it again" if other is None or other.hint is None else other.hint
        raise DataError(f"{path}: not a readable picture: {reason}", hint) from error


def _reason(path: Path, error: BaseException) -> str:
    if path.is_file() and not path.stat().st_size:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"
    return (str(error).splitlines() or [type(error).__name__])[0]
