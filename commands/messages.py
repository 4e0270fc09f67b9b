"""What commands print: result lines, errors with their hints, the library's log, tables, JSON.

All printing with rich goes through this file and `commands.progress`: names, paths and errors are shown as they are,
whatever brackets, colons or control characters are in them.
"""

import codecs
import json
import logging
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.measure import Measurement
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from pipeline.runtime.text import in_other_letters, visible

if TYPE_CHECKING:
    from pipeline.runtime.errors import MmsslError

Cell = str | Text
_NARROWEST = 20  # columns of a terminal; one with fewer wraps by itself
_WIDEST = 20_000  # of a table in a pipe, in characters
_OTHER_LETTERS = "mmssl.other-letters"
codecs.register_error(_OTHER_LETTERS, in_other_letters)


class Screen(Console):
    """A console that reads no markup, emoji code or number in what it prints."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        """Its columns and rows; rich prints nothing at all if the environment says that there are none."""
        width, height = super().size
        return ConsoleDimensions(max(_NARROWEST, width), max(1, height))

    @property
    def is_watched(self) -> bool:
        """Whether it is a terminal; FORCE_COLOR gives colours to a file, but does not make it one."""
        try:
            return bool(self.file.isatty())
        except ValueError:  # it is closed
            return False


out = Screen()
err = Screen(stderr=True)


class Table(RichTable):
    """A table whose headings and cells are shown as they are; on a terminal what is too wide is folded, never cut."""

    def __init__(self, *headers: str, title: str | None = None) -> None:
        super().__init__(
            *(Column(_literal(header), overflow="fold") for header in headers),
            title=None if title is None else _literal(title),
            title_justify="left",
        )

    def add_row(self, *cells: Cell, **options: Any) -> None:  # type: ignore[override]
        """Adds a row of texts, or of texts that `styled` made."""
        super().add_row(*map(_literal, cells), **options)


def _literal(text: Cell) -> Text:
    return text if isinstance(text, Text) else Text(visible(text))


def styled(text: str, style: str) -> Text:
    """A text in a colour, for a cell or a line."""
    return Text(visible(text), style)


def use_any_encoding() -> None:
    """Makes the standard streams take every letter, in other letters where their encoding lacks it.

    A stream that was closed before the program began takes everything and keeps nothing.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_OTHER_LETTERS)


def say(text: str = "") -> None:
    """Prints one line of a command's result, verbatim and without wrapping."""
    out.file.write(f"{visible(text)}\n")


def say_path(path: Path) -> None:
    """Prints where something is, on a line of its own; in a pipe the very bytes of the path."""
    file, text = out.file, str(path.resolve())
    if out.is_watched or not hasattr(file, "buffer"):
        say(text)
        return
    file.flush()
    file.buffer.write(os.fsencode(text) + b"\n")
    file.buffer.flush()


def own_name() -> str:
    """How a user calls this program: `mmssl`, or its path where a shell would find another or none."""
    called = Path(sys.argv[0])
    found = shutil.which("mmssl")
    if called.name != "mmssl" or (found is not None and Path(found).resolve() == called.resolve()):
        return "mmssl"
    return shlex.quote(str(called))


def say_styled(*pieces: Cell) -> None:
    """Prints one line made of plain and of styled pieces, without wrapping."""
    out.print(Text.assemble(*map(_literal, pieces)), soft_wrap=True)


def show(table: RichTable) -> None:
    """Prints a table: folded to fit a terminal, and as wide as it is elsewhere."""
    if out.is_watched:
        out.print(table)
        return
    natural = Measurement.get(out, out.options.update(max_width=_WIDEST), table).maximum
    Screen(file=out.file, width=max(1, natural), height=out.height).print(table, crop=False)


def complain(error: "MmsslError") -> None:
    """Prints an error and its hint, one line each, to the error stream."""
    err.print(Text.assemble(("error:", "bold red"), f" {visible(error.message)}"), soft_wrap=True)
    if error.hint:
        err.print(Text.assemble(("hint:", "dim"), f"  {visible(error.hint)}"), soft_wrap=True)


def percent(share: float | None) -> str:
    """A share as a percentage, or a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}"


class _OneLine(logging.Formatter):
    """A record as one line, with what acts on a terminal escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message)
        return super().formatMessage(record)


def show_log() -> None:
    """Sends the library's log to the error stream: plain lines on a terminal, with the time elsewhere."""
    handler: logging.Handler
    if err.is_watched:
        handler = RichHandler(
            console=err,
            show_time=False,
            show_level=False,
            show_path=False,
            markup=False,
            highlighter=NullHighlighter(),
            keywords=[],
        )
        handler.setFormatter(_OneLine("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in ("mmssl", "pipeline", "trainer"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]


def as_json(value: Any) -> None:
    """Prints a result as JSON, without colours; in ASCII where the stream is not known to take other letters.

    A number that is not finite, which JSON does not have, is null.
    """
    in_ascii = not out.encoding.startswith("utf")
    text = json.dumps(_finite(value), default=str, indent=2, ensure_ascii=in_ascii, allow_nan=False)
    out.file.write(re.sub("[\ud800-\udfff\x7f-\x9f\u2028-\u202e\u2066-\u2069]", _json_escape, text) + "\n")


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
