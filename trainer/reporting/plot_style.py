"""The style of all pictures, and writing them: matplotlib figures as SVG, PNG or PDF, on a light or dark background.

Text and axes of an SVG follow the reader's colour scheme; PNG and PDF have a white background. The colours of lines and
points have a contrast of at least 3:1 against both, and markers differ too, so no picture depends on colour alone.
"""

import base64
import io
import logging
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from pipeline.runtime.errors import UsageError
from pipeline.runtime.files import write_if_changed
from pipeline.runtime.text import visible
from trainer.reporting.fonts import lacking_letters, use_fonts_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
_log = logging.getLogger(__name__)

COLOURS = ("#2f7ed8", "#d9730d", "#1a9850", "#b0579f", "#8a7a00", "#d9485f", "#0d9488", "#7c6fd6", "#a0623a", "#7d8590")
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":")
GREY = "#7d8590"  # of grids and reference lines
FORMATS = {".svg": "image/svg+xml", ".png": "image/png", ".pdf": "application/pdf"}
_INK = "#1c2128"
_DARK_INK = "#e6e8eb"  # the ink where the reader's colour scheme is dark
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_DPI = 150
_LETTERS_PER_INCH = 108  # of a font of one point, about
_NOTICE_SIZE = 9  # points
_NOTICE_LINE, _NOTICE_MARGIN = 0.2, 0.1  # inches
_SCHEME = (
    f"<style>:root{{color-scheme:light dark;color:{_INK}}}"
    f"@media(prefers-color-scheme:dark){{:root{{color:{_DARK_INK}}}}}</style>"
)
_STYLE: dict[Any, Any] = {
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": "medium",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": "small",
    "figure.facecolor": "white",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "mmssl",
    "text.parse_math": False,  # a class may be named $x^2$, and means just that
}


def styled(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Makes a function draw in this style, whatever the user's own matplotlib settings are."""

    @wraps(draw)
    def in_style(*arguments: P.args, **options: P.kwargs) -> "Figure":
        with _style():
            return draw(*arguments, **options)

    return in_style


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def letters(figure: "Figure", size: float) -> int:
    """About how many letters of a size (in points) fit into a line as wide as the figure."""
    return letters_in(figure.get_figwidth(), size)


def letters_in(width: float, size: float) -> int:
    """About how many letters of a size (in points) fit into a line of a width (in inches)."""
    return int(_LETTERS_PER_INCH / size * width)


def announce(figure: "Figure", text: str) -> None:
    """Adds a notice above everything in the figure, which grows by the height of the notice."""
    lines = textwrap.wrap(text, letters(figure, _NOTICE_SIZE))
    height = figure.get_figheight()
    added = _NOTICE_LINE * len(lines) + _NOTICE_MARGIN
    total = height + added
    figure.set_figheight(total)
    if figure.get_layout_engine() is not None:
        figure.suptitle("\n".join(lines), size=_NOTICE_SIZE, color=_INK)
        return
    share = height / total
    for axis in figure.axes:  # the same size as before, further down
        left, bottom, width, axis_height = axis.get_position().bounds
        axis.set_position((left, bottom * share, width, axis_height * share))
    top = 1 - _NOTICE_MARGIN / total
    figure.text(0.5, top, "\n".join(lines), va="top", ha="center", size=_NOTICE_SIZE, color=_INK)


def colour(number: int) -> str:
    """The colour of a line or class by its number; colours repeat after ten."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """The marker of a line or class by its number; markers repeat after ten."""
    return MARKERS[number % len(MARKERS)]


def line(number: int) -> str:
    """The line style by number: solid for the first ten, one per colour, then dashed, then dotted."""
    return LINES[number // len(COLOURS) % len(LINES)]


def check_format(path: Path) -> str:
    """The picture format that a path's suffix names: `svg`, `png` or `pdf`.

    Raises:
        UsageError: the suffix is not that of a picture format.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{path} is not a picture format that can be written", f"supported: {', '.join(FORMATS)}")
    return suffix[1:]


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure atomically, in the format that the path's suffix names.

    Raises:
        UsageError: the suffix is not that of a picture format.
        StorageError: the picture cannot be written.
    """
    write_if_changed(path, render(figure, check_format(path)))


def render(figure: "Figure", kind: str) -> bytes:
    """Renders a figure as the bytes of an `svg`, `png` or `pdf` file; equal figures give equal bytes."""
    content = io.BytesIO()
    no_date = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with _style(), lacking_letters() as lacking:
        figure.savefig(content, format=kind, dpi=_DPI, metadata=no_date, transparent=kind == "svg")
        if lacking and use_fonts_with(lacking, figure):
            lacking.clear()
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=_DPI, metadata=no_date, transparent=kind == "svg")
    if lacking and kind != "svg":  # a reader of an SVG has fonts of his own
        _log.warning("no installed font has %s: a box stands for each", " ".join(map(visible, sorted(lacking))))
    if kind != "svg":
        return content.getvalue()
    text = _NO_XML.sub(lambda match: visible(match[0]), content.getvalue().decode()).replace(_INK, "currentColor")
    head, tag, rest = text.partition("<svg")
    attributes, close, body = rest.partition(">")
    return (head + tag + attributes + close + _SCHEME + body).encode()


def data_uri(content: bytes, suffix: str) -> str:
    """A picture as a `data:` address, so that an image element needs neither a file nor a network."""
    return f"data:{FORMATS[suffix]};base64,{base64.b64encode(content).decode()}"
