"""Settings from files and from the command line, not yet validated."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import DataError, UsageError


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, not yet validated.

    Raises:
        DataError: the file is not there, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no settings file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the settings file {path}: {error}") from None


def read_assignments(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as settings, not yet validated; a value is written as in TOML, a word may go unquoted.

    Raises:
        UsageError: one is no assignment.
    """
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name.strip().isidentifier() and equals and value.strip()):
            raise UsageError(f"--set takes NAME=VALUE, and got '{text}'", "an example: --set consistency=1")
        try:
            values |= {name.strip(): tomllib.loads(f"value = {value}")["value"]}
        except tomllib.TOMLDecodeError:
            values |= {name.strip(): value.strip()}
    return values
