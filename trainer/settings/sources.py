"""Reads settings from files and from the command line, without validating them."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import DataError, UsageError


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, not yet validated.

    Raises:
        DataError: the file does not exist, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no settings file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the settings file {path}: {error}") from None


def read_assignments(given: Sequence[str]) -> dict[str, Any]:
    """The settings in `NAME=VALUE` texts, not yet validated. Values are TOML, except that a word needs no quotes.

    Raises:
        UsageError: one of the texts is not an assignment.
    """
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name.strip().isidentifier() and equals and value.strip()):
            raise UsageError(f"--set takes NAME=VALUE, not '{text}'", "for example: --set consistency=1")
        try:
            values |= {name.strip(): tomllib.loads(f"value = {value}")["value"]}
        except tomllib.TOMLDecodeError:
            values |= {name.strip(): value.strip()}
    return values
