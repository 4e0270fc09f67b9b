"""The `mmssl` command: the application with all its commands, and what becomes of errors and signals."""

import errno
import os
import re
import signal
import sys
from difflib import get_close_matches
from types import FrameType
from typing import NoReturn

import typer

from commands import data, demo, messages, prepare, reproduce, results, train
from commands.app import app
from pipeline.runtime.errors import Interrupted, MmsslError, UsageError

__all__ = ["app", "data", "demo", "main", "prepare", "reproduce", "results", "train"]
# What the parser raises for a wrong command line; its class has no public name of its own.
_ParserError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> NoReturn:
    """Runs a command; errors of the user's making become one line, a hint and an exit code."""
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, _interrupt)
    try:
        # A container's first process hears nothing before it has handlers; its entry point blocks the signal till here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except MmsslError as error:
        _fail(error)
    except _ParserError as error:
        problem = _usage_error(error)
        if not problem.message:  # no command was given, and the help was printed
            sys.exit(UsageError.exit_code)
        _fail(problem)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _fail(UsageError(f"{str(error.filename)[:80]}...: a name is longer than the system allows"))


def _fail(error: MmsslError) -> NoReturn:
    messages.complain(error)
    sys.exit(error.exit_code)


def _usage_error(error: Exception) -> UsageError:
    """The parser's error as one of ours: one line, the nearest choice, and where to read on."""
    text = " ".join(str(getattr(error, "format_message", lambda: error)()).replace("Value error, ", "").split())
    command = getattr(getattr(error, "ctx", None), "command_path", "mmssl")
    wrong = re.search(r"'(?P<given>[^']*)' is not one of (?P<choices>.*)", text)
    near = get_close_matches(wrong["given"], re.findall(r"'([^']*)'", wrong["choices"]), n=1) if wrong else []
    return UsageError(text, f"did you mean {near[0]}?" if near else f"{command} --help")


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(
        f"stopped by {signal.Signals(number).name}; nothing half-written was left", "the same command starts again"
    )


if __name__ == "__main__":
    main()
