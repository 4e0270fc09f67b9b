"""The `mmssl` command: the application with all its commands, and how errors and signals end it."""

import errno
import os
import re
import signal
import sys
from contextlib import suppress
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

_ROOT = Path(__file__).resolve().parent


def _hidden(package: str) -> bool:
    """Whether another package of this name comes before ours."""
    spec = PathFinder.find_spec(package)
    return spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != _ROOT


# Others have a `trainer` or a `pipeline` too, and PYTHONPATH names it first. Processes that we start inherit the path.
if any(map(_hidden, ("commands", "data_manifests", "pipeline", "trainer"))):
    sys.path.insert(0, str(_ROOT))

from commands import (  # noqa: E402
    compare,
    data,
    data_import,
    demo,
    doctor,
    doubts,
    export,
    label,
    messages,
    predict,
    prepare,
    reproduce,
    results,
    serve,
    suggest,
    train,
)
from commands.app import app  # noqa: E402
from pipeline.runtime.errors import Interrupted, MmsslError, StorageError, UsageError  # noqa: E402
from pipeline.runtime.interrupts import heeded  # noqa: E402
from pipeline.runtime.machine import share_threads  # noqa: E402

__all__ = [
    "app", "compare", "data", "data_import", "demo", "doctor", "doubts", "export", "label", "main", "predict",
    "prepare", "reproduce", "results", "serve", "suggest", "train",
]  # fmt: skip
# What the parser raises for a wrong command line; this base class has no public name.
_ParserError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> NoReturn:
    """Runs a command; errors that a user can cause become one line, a hint and an exit code."""
    for number in heeded():
        signal.signal(number, _interrupt)
    sys.unraisablehook = _not_lost
    share_threads()
    messages.use_any_encoding()
    try:
        _check_folder()
        # The first process of a container ignores signals it has no handler for, so the entry point blocks them until
        # the handlers are there.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        code = app(standalone_mode=False, prog_name="mmssl")
        sys.stdout.flush()  # here, where it is known what to do if it fails
        sys.exit(code if isinstance(code, int) else 0)
    except MmsslError as error:
        _fail(error)
    except _ParserError as error:
        problem = _usage_error(error)
        if not problem.message:  # no command was given, so the help was printed
            sys.exit(UsageError.exit_code)
        _fail(problem)
    except BrokenPipeError:  # the reader of our output went away
        _forget_output()
        sys.exit(1)
    except OSError as error:
        if "temporary directory" in str(error.strerror):  # tempfile's, having tried them all
            _fail(StorageError("no temporary folder can be written to", "export TMPDIR=FOLDER names one that can"))
        if error.errno == errno.ENAMETOOLONG:
            _fail(UsageError(f"{str(error.filename)[:80]}...: the name is longer than the system allows"))
        if isinstance(error, PermissionError) and error.filename is not None:
            _fail(StorageError(f"{error.filename}: {error.strerror}", "ask its owner, or choose another place"))
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        _forget_output()
        _fail(StorageError(f"the output cannot be written: {error.strerror}"))


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError:  # libraries would end the process, and files named from here are nowhere
        raise UsageError("the current folder does not exist any more", "cd to one that does") from None


def _forget_output() -> None:
    """Lets what is still to be printed vanish, because the standard output takes nothing more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: MmsslError) -> NoReturn:
    with suppress(OSError):  # the reader of our output, or of this line, may have gone away
        sys.stdout.flush()
        messages.complain(error)
        sys.stderr.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    sys.exit(error.exit_code)


def _usage_error(error: Exception) -> UsageError:
    """Turns the parser's error into one line, with the closest choice or the command's help as the hint."""
    text = " ".join(str(getattr(error, "format_message", lambda: error)()).replace("Value error, ", "").split())
    command = getattr(getattr(error, "ctx", None), "command_path", "mmssl")
    invalid = re.search(r"'(?P<given>[^']*)' is not one of (?P<choices>.*)", text)
    closest = get_close_matches(invalid["given"], re.findall(r"'([^']*)'", invalid["choices"]), n=1) if invalid else []
    return UsageError(text, f"did you mean {closest[0]}?" if closest else f"{command} --help")


def _interrupt(number: int, _: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    raise Interrupted(
        f"stopped by {signal.Signals(number).name}; no half-written file was left", "run the same command again"
    )


def _not_lost(unraisable: "sys.UnraisableHookArgs") -> None:
    """Sends a signal again that came while a destructor ran: what is raised there, Python prints and drops."""
    if isinstance(unraisable.exc_value, Interrupted):
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # once the destructor has returned
    else:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    main()
