"""Fonts for the letters of a figure: other installed ones where the usual font lacks a letter."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USUAL = "DejaVu Sans"
_MISSING = re.compile(r"Glyph (\d+) ")
_OF_LETTERS = r"Glyph \d+ |Matplotlib currently does not support "  # the second names a script, beside a letter of it
_MOST_FONTS = 12  # besides the usual one, in a figure


@contextmanager
def lacking_letters() -> Iterator[set[str]]:
    """Collects the letters that a figure is drawn without, for which matplotlib would print a warning each.

    Other warnings are left to the filters in force.
    """
    lacking: set[str] = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=_OF_LETTERS, category=UserWarning)
        show = warnings.showwarning

        def collect(message: Warning | str, *where: Any, **more: Any) -> None:
            if not re.match(_OF_LETTERS, str(message)):
                show(message, *where, **more)
            elif missing := _MISSING.match(str(message)):
                lacking.add(chr(int(missing[1])))

        warnings.showwarning = collect  # catch_warnings puts the old one back
        yield lacking


def use_fonts_with(letters: set[str], figure: "Figure") -> bool:
    """Adds fonts that have some of these letters to all texts of a figure; whether there are such fonts."""
    from matplotlib import rcParams
    from matplotlib.text import Text

    found = fonts_with(frozenset(letters))
    if not found:
        return False
    rcParams["font.family"] = [USUAL, *found]  # for the ticks that are made when the figure is drawn
    for text in figure.findobj(Text):
        text.set_fontfamily([USUAL, *found])
    return True


@cache
def fonts_with(letters: frozenset[str]) -> tuple[str, ...]:
    """The families of installed fonts that together have as many of the letters as any have, those with most first."""
    from matplotlib.font_manager import fontManager

    wanted = {ord(letter) for letter in letters}
    known: dict[str, set[int]] = {}
    for font in fontManager.ttflist:
        regular = font.style == "normal" and font.weight in (400, "normal", "regular", "book")
        if regular and font.name not in known and not font.name.startswith("Last Resort"):
            known[font.name] = _letters_in(font.fname) & wanted
    chosen: list[str] = []
    while wanted and len(chosen) < _MOST_FONTS:
        best = max(sorted(known), key=lambda name: len(known[name] & wanted), default=None)
        if best is None or not known[best] & wanted:
            break
        chosen.append(best)
        wanted -= known[best]
    return tuple(chosen)


def _letters_in(path: str) -> set[int]:
    """The code points that a font file has glyphs for; none if it is gone, or cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(path).get_charmap()) if Path(path).is_file() else set()
    except (OSError, RuntimeError, ValueError):
        return set()
