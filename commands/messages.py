"""What commands print: result lines, errors with their hints, the library's log, JSON."""

import json
import logging
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.runtime.errors import MmsslError

out = Console()
err = Console(stderr=True)
_WIDEST = 1000  # of a table in a pipe, in characters


def say(text: str) -> None:
    """Prints one line of a command's result, verbatim and without wrapping."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def show_whole(table: Table) -> None:
    """Prints a table: wrapped to fit a terminal, and as wide as it is elsewhere."""
    if out.is_terminal:
        out.print(table)
        return
    natural = Measurement.get(out, out.options.update(max_width=_WIDEST), table).maximum
    Console(width=max(out.width, natural)).print(table)


def complain(error: "MmsslError") -> None:
    """Prints an error and its hint, one line each, to the error stream."""
    err.print(f"[bold red]error:[/] {plain(error.message)}", highlight=False, soft_wrap=True)
    if error.hint:
        err.print(f"[dim]hint:[/]  {plain(error.hint)}", highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Escapes text so that rich does not read markup in it."""
    return text.replace("[", r"\[")


def percent(share: float | None) -> str:
    """A share as a percentage, or a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def show_log() -> None:
    """Sends the library's log to the error stream: plain lines on a terminal, with the time elsewhere."""
    handler: logging.Handler
    if err.is_terminal:
        handler = RichHandler(console=err, show_time=False, show_level=False, show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in ("mmssl", "pipeline", "trainer"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]


def as_json(value: Any) -> None:
    """Prints a result as JSON."""
    out.print_json(json.dumps(value, default=str))
