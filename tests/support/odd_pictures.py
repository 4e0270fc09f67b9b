"""Colour and depth files as people have them: good ones of every kind, and what only looks like one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SIDES = (6, 8)
GOOD_COLOUR: Mapping[str, tuple[str, ...]] = {  # mode -> suffixes that can hold it
    "RGB": (".png", ".PNG", ".jpg", ".JPEG", ".bmp", ".tif", ".webp"),
    "L": (".png", ".jpg", ".Tiff"),
    "P": (".png", ".bmp"),
    "RGBA": (".png", ".tif"),
    "LA": (".png",),
    "CMYK": (".jpg", ".tif"),
    "I;16": (".png", ".tif"),
}
GOOD_DEPTH = (".png", ".PNG", ".tif", ".TIFF", ".npy")
BAD = ("missing", "empty", "truncated", "text", "link", "folder", "wrong kind")


def write_colour(path: Path, mode: str) -> None:
    """A colour picture of a mode, whose brightest pixel is white or nearly so."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIDES, 3), np.uint8)
    pixels[0] = 255
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels)
    (image if mode == "I;16" else image.convert(mode)).save(path)


def write_depth(path: Path) -> None:
    """A depth picture of 16 bits."""
    values = np.random.default_rng(1).integers(500, 1500, SIDES, np.uint16)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def spoil(path: Path, how: str, *, colour: bool) -> None:
    """Puts what cannot be used in the place of a good picture."""
    content = path.read_bytes()
    path.unlink()
    if how == "empty":
        path.touch()
    elif how == "truncated":
        path.write_bytes(content[:30])
    elif how == "text":
        path.write_text("<html>not found</html>")
    elif how == "link":
        path.symlink_to("../.git/annex/objects/nowhere")
    elif how == "folder":
        path.mkdir()
    elif how == "wrong kind" and path.suffix == ".npy":
        np.save(path, np.ones((*SIDES, 3)))
    elif how == "wrong kind":
        values = np.full(SIDES, 900, np.uint16) if colour else np.full(SIDES, 9, np.uint8)
        Image.fromarray(values).save(path, format="PNG")
