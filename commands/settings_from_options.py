"""Turns option values from the command line into settings objects."""

from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from commands.options import numbers
from pipeline.runtime.errors import UsageError

M = TypeVar("M", bound=BaseModel)


def settings_of(kind: type[M], **values: object) -> M:
    """Builds a settings object; a value of None means the default.

    Raises:
        UsageError: a value is invalid; the message names the first one.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:  # the words of a choice as they are: not every version of pydantic takes an enumeration's member for its text
        return kind(**{name: value.value if isinstance(value, Enum) else value for name, value in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
        raise UsageError(f"{option} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def chosen_numbers(option: str | None, values: dict[str, Any], name: str, flag: str) -> list[int]:
    """The seeds or splits that an option names, otherwise those that the settings name; empty if neither does.

    Args:
        values: the settings, from which this one is taken out: one number, a list of numbers, or `0..4`.

    Raises:
        UsageError: what is given are not numbers.
    """
    given = values.pop(name, None)
    if option is None and given is not None:
        option, flag = _as_option(given), f"the setting {name}"
    return numbers(option, int, flag)


def chosen_weights(option: str | None, values: dict[str, Any], name: str, flag: str) -> list[float]:
    """The weights that an option names, otherwise the several that the settings name; empty if there is one or none.

    Args:
        values: the settings, from which several weights are taken out: a list of numbers, or `0.1,1,10`.

    Raises:
        UsageError: what is given are not numbers.
    """
    if option is not None:
        return numbers(option, float, flag)
    if not isinstance(values.get(name), list | str):
        return []
    return numbers(_as_option(values.pop(name)), float, f"the setting {name}")


def _as_option(given: object) -> str:
    """A setting as its option would say it: 3.0 is 3."""
    if isinstance(given, list):
        return ",".join(map(_as_option, given))
    return f"{given:.0f}" if isinstance(given, float) and given.is_integer() else str(given)
