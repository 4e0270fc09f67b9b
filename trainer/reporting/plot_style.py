"""How pictures look and where they go: matplotlib figures, readable on light and on dark paper, as SVG, PNG or PDF.

Text and axes of an SVG follow the reader's colour scheme; PNG and PDF have a white ground. The colours of lines and
points have a contrast of 3:1 or more against both, and markers differ too: no picture is read by colour alone.
"""

import base64
import io
import textwrap
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from pipeline.runtime.errors import UsageError
from pipeline.runtime.files import write_if_changed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

COLOURS = ("#2f7ed8", "#d9730d", "#1a9850", "#b0579f", "#8a7a00", "#d9485f", "#0d9488", "#7c6fd6", "#a0623a", "#7d8590")
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":")
FORMATS = {".svg": "image/svg+xml", ".png": "image/png", ".pdf": "application/pdf"}
_INK = "#1c2128"
_DARK_INK = "#e6e8eb"
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
    "grid.color": "#7d8590",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": "small",
    "figure.facecolor": "white",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "mmssl",
}


def styled(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Lets a function draw in the house's style, whatever the user's own matplotlib settings are."""

    @wraps(draw)
    def in_style(*arguments: P.args, **options: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*arguments, **options)

    return in_style


def letters(figure: "Figure", size: float) -> int:
    """About how many letters of a size (points) a line as wide as the figure holds."""
    return int(108 / size * figure.get_figwidth())


def announce(figure: "Figure", text: str) -> None:
    """Writes a text above everything that is drawn, in room of its own."""
    lines = textwrap.wrap(text, letters(figure, 9))
    height = figure.get_figheight()
    room = 0.2 * len(lines) + 0.1  # inches
    figure.set_figheight(height + room)
    if figure.get_layout_engine() is not None:
        figure.suptitle("\n".join(lines), size=9, color=_INK)
        return
    share = height / (height + room)
    for axis in figure.axes:  # as large as before, further down
        left, bottom, width, high = axis.get_position().bounds
        axis.set_position((left, bottom * share, width, high * share))
    figure.text(0.5, 1 - 0.1 / (height + room), "\n".join(lines), va="top", ha="center", size=9, color=_INK)


def colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


def line(number: int) -> str:
    """Solid for as many as there are colours, then dashed."""
    return LINES[number // len(COLOURS) % len(LINES)]


def check_format(path: Path) -> str:
    """The picture format that a path's suffix names: `svg`, `png` or `pdf`.

    Raises:
        UsageError: it names none.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{path} is no picture that can be written", f"its name has to end in {', '.join(FORMATS)}")
    return suffix[1:]


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure, whole or not at all; the path's suffix says as what.

    Raises:
        UsageError: the suffix is none of a picture.
        StorageError: the picture cannot be written.
    """
    write_if_changed(path, render(figure, check_format(path)))


def render(figure: "Figure", kind: str) -> bytes:
    """A figure as the bytes of an `svg`, `png` or `pdf` file; equal figures give equal bytes."""
    import matplotlib

    content = io.BytesIO()
    date = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with matplotlib.rc_context({key: _STYLE[key] for key in ("svg.fonttype", "svg.hashsalt")}):
        figure.savefig(content, format=kind, dpi=150, metadata=date, transparent=kind == "svg")
    if kind != "svg":
        return content.getvalue()
    text = content.getvalue().decode().replace(_INK, "currentColor")
    head, tag, rest = text.partition("<svg")
    attributes, close, body = rest.partition(">")
    return (head + tag + attributes + close + _SCHEME + body).encode()


def data_uri(content: bytes, suffix: str) -> str:
    """A picture as the address of an image element that needs no file and no network."""
    return f"data:{FORMATS[suffix]};base64,{base64.b64encode(content).decode()}"
