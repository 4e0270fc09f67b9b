"""A sheet that shows frames, raw and processed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.images.depth import Depth, DepthEncoding, depth_flaw, encode_depth, fill_holes, scale_depth
from pipeline.images.frames import Frame
from pipeline.images.resize import SIZE, Bytes, resize_depth, resize_rgb
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path
from pipeline.runtime.text import visible


@dataclass(frozen=True)
class Preview:
    """One frame of a contact sheet: its name, RGB [H, W, 3], depth [H, W], and the crop's corner if known.

    What a frame lacks is None, and its panels are blank. `unit` follows the caption's range of depth.
    """

    name: str
    rgb: Bytes | None
    depth: Depth | None
    corner: tuple[int, int] | None = None
    unit: str = " mm"


_ROWS = 8  # frames per column, at most
_HOLE = np.array([255, 0, 160], np.uint8)  # the colour that marks missing depth
_BLANK = (232, 232, 228)  # where a frame lacks the modality
_PAPER, _INK, _FAINT = (250, 250, 248), (28, 28, 30), (120, 120, 124)


def _panels(frame: Preview, encoding: DepthEncoding) -> tuple[Bytes, ...]:
    """RGB; depth with its holes marked (near is bright); the same, filled; encoded depth. Each [SIZE, SIZE, 3]."""
    blank = np.broadcast_to(np.array(_BLANK, np.uint8), (SIZE, SIZE, 3))
    colour = blank if frame.rgb is None else resize_rgb(frame.rgb)
    if frame.depth is None:
        return colour, blank, blank, blank
    grey = 255 - resize_depth(scale_depth(fill_holes(frame.depth)))[..., None].repeat(3, axis=2)
    marked = np.where(resize_depth(frame.depth)[..., None] == 0, _HOLE, grey)
    return colour, marked, grey, encode_depth(frame.depth, encoding, corner=frame.corner)


def draw(
    frames: Iterable[Frame], path: Path, encoding: DepthEncoding = "jet", *, corner: bool = False, unit: str = " mm"
) -> None:
    """Draws frames, raw and processed, into a PNG file; what cannot be read is left out, as in a store.

    Raises:
        StorageError: the disk is full or refuses.
    """
    previews = []
    for frame in frames:
        try:
            pixels = frame.read(corner=corner)
        except DataError:  # named when the store is made
            continue
        previews.append(Preview(frame.id, pixels.rgb, pixels.depth, pixels.corner, unit))
    with atomic_path(path) as temporary:
        contact_sheet(previews, encoding).save(temporary, format="PNG")


def contact_sheet(frames: Sequence[Preview], encoding: DepthEncoding = "jet") -> Image.Image:
    """Draws every frame as RGB, raw depth with holes marked, filled depth and encoded depth, with a caption."""
    gap, caption, header, margin = 6, 24, 30, 18  # pixels
    titles = ("RGB", "depth, holes marked", "holes filled", {"jet": "jet: near is red"}.get(encoding, encoding))
    blocks = max(1, -(-len(frames) // _ROWS))
    tall = max(1, -(-len(frames) // blocks))
    block_width = len(titles) * (SIZE + gap) - gap
    sheet = Image.new(
        "RGB",
        (2 * margin + blocks * (block_width + 2 * margin) - 2 * margin, 2 * margin + header + tall * (SIZE + caption)),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    small, bold = ImageFont.load_default(12), ImageFont.load_default(13)
    for block in range(blocks):
        for column, title in enumerate(titles):
            x = margin + block * (block_width + 2 * margin) + column * (SIZE + gap)
            draw.text((x, margin), title, _INK, bold)
    for number, frame in enumerate(frames):
        block, row = divmod(number, tall)
        left, top = margin + block * (block_width + 2 * margin), margin + header + row * (SIZE + caption)
        for column, panel in enumerate(_panels(frame, encoding)):
            sheet.paste(Image.fromarray(panel), (left + column * (SIZE + gap), top))
        text = _caption(frame)
        draw.text((left, top + SIZE + 3), text, _FAINT, small)
    return sheet


def _caption(frame: Preview) -> str:
    if frame.depth is None:
        return f"{visible(frame.name)}   no depth"
    height, width = frame.depth.shape
    valid = frame.depth[frame.depth > 0]
    text = f"{visible(frame.name)}   {width} x {height}   {1 - valid.size / frame.depth.size:.0%} missing"
    if valid.size:
        text += f"   {valid.min():g}..{valid.max():g}{frame.unit}"
    if (flaw := depth_flaw(frame.depth)) is not None:
        text += f"   ({flaw})"
    return text
