"""Reads settings from files and from the command line, without validating them."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.texts import read_text

_NAME = re.compile(r"""[A-Za-z_]\w*(\.([^\s."'=]+|"[^"\n]+"))*""")  # cotraining.pool, networks.q(a|X)


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, not yet validated.

    Raises:
        DataError: the file does not exist, is not text in a known encoding, or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise DataError(f"there is no settings file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the settings file {path}: {error}") from None


def read_assignments(given: Sequence[str]) -> dict[str, Any]:
    """The settings in `NAME=VALUE` texts, not yet validated. Values are TOML, except that a word needs no quotes.

    A name may lead into a table: `cotraining.pool=75`.

    Raises:
        UsageError: one of the texts is not an assignment.
    """
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (_NAME.fullmatch(name.strip()) and equals and value.strip()):
            raise UsageError(f"--set takes NAME=VALUE, not '{text}'", "for example: --set consistency=1")
        first, *others = (quoted or bare for quoted, bare in re.findall(r'"([^"]+)"|([^."]+)', name.strip()))
        parsed = _parsed(value)
        for part in reversed(others):
            parsed = {part: parsed}
        values = merged(values, {first: parsed})
    return values


def merged(values: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of two sources: the later replaces the earlier, name by name, also within tables."""
    tables = {
        name: merged(values[name], value)
        for name, value in later.items()
        if isinstance(value, Mapping) and isinstance(values.get(name), Mapping)
    }
    return {**values, **later, **tables}


def _parsed(value: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return value.strip()
    return parsed["value"] if len(parsed) == 1 else value.strip()
