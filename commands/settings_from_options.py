"""Turns option values from the command line into settings objects."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.runtime.errors import UsageError

M = TypeVar("M", bound=BaseModel)


def settings_of(kind: type[M], **values: object) -> M:
    """Builds a settings object; a value of None means the default.

    Raises:
        UsageError: a value is invalid; the message names the first one.
    """
    try:
        return kind(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
        raise UsageError(f"{option} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
