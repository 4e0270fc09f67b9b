"""Small drawings as SVG text: a card with its own background, so that they are readable on light and dark pages."""

from collections.abc import Iterable
from html import escape

# Names of colours for the reader's light and dark scheme. The card is opaque: neither depends on the page behind it.
COLOURS = {
    "card": ("#ffffff", "#151b23"),
    "edge": ("#d1d9e0", "#3d444d"),
    "ink": ("#1f2328", "#f0f6fc"),
    "soft": ("#59636e", "#9198a1"),
    "grid": ("#eaeef2", "#262c36"),
    "violet": ("#8250df", "#ab7df8"),
    "blue": ("#0969da", "#4493f8"),
    "green": ("#1a7f37", "#3fb950"),
    "orange": ("#bc4c00", "#f0883e"),
    "grey": ("#818b98", "#818b98"),
    "pale-violet": ("#fbefff", "#2f2244"),
    "pale-blue": ("#ddf4ff", "#14304f"),
    "pale-green": ("#dafbe1", "#14361f"),
}
FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


def text(
    x: float, y: float, words: str, size: int = 12, colour: str = "ink", anchor: str = "start", **more: str
) -> str:
    """A line of text; `more` are attributes, with `_` for `-`."""
    attributes = _attributes(more)
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" class="{colour}" text-anchor="{anchor}"{attributes}>'
        f"{escape(words, quote=False)}</text>"
    )


def box(x: float, y: float, width: float, height: float, fill: str, edge: str = "", radius: float = 4) -> str:
    """A rectangle."""
    kind = f"{fill} line-{edge}" if edge else fill
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{kind}"/>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = "edge", width: float = 1, **more: str) -> str:
    """A straight line."""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="line-{colour}" '
        f'stroke-width="{width:g}"{_attributes(more)}/>'
    )


def picture(width: int, height: int, title: str, description: str, parts: Iterable[str]) -> str:
    """The whole drawing, with words for those who cannot see it."""
    light = "".join(_rule(name, colours[0]) for name, colours in COLOURS.items())
    dark = "".join(_rule(name, colours[1]) for name, colours in COLOURS.items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="{FONT}">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(description)}</desc>",
        f"<style>{light}@media (prefers-color-scheme: dark) {{{dark}}}</style>",
        box(0.5, 0.5, width - 1, height - 1, "card", "edge", 8),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _rule(name: str, colour: str) -> str:
    return f".{name}{{fill:{colour}}}.line-{name}{{stroke:{colour}}}"


def _attributes(more: dict[str, str]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
