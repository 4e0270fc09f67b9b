"""The versions of the packages that made a file, for its provenance; and files of newer versions of mmssl."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pipeline.runtime.errors import NewerError

if TYPE_CHECKING:
    from pydantic import ValidationError


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package and of mmssl itself ("checkout" if it runs without being installed)."""
    return {package: _version(package) for package in ("mmssl", *packages)}


def newer(what: object, found: str, known: str) -> NewerError:
    """The error for a file that a newer version wrote.

    Args:
        what: the file or folder.
        found: what tells it, such as `schema 3`.
        known: what this version knows, such as `reads schemas 1 and 2`.
    """
    return NewerError(f"{what} was written by a newer version of mmssl ({found}; this version {known})", "update mmssl")


def check_known(what: object, error: "ValidationError") -> None:
    """Tells a file with entries that only a newer version can have written from one that is damaged.

    Raises:
        NewerError: the only fault is entries that this version does not know.
    """
    faults = error.errors()
    if all(fault["type"] == "extra_forbidden" for fault in faults):
        where = ".".join(map(str, faults[0]["loc"]))[:80]
        raise newer(what, f"it has the entry '{where}'", "does not know that") from None


@lru_cache  # takes milliseconds, and an image store asks once per object
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "checkout" if package == "mmssl" else "not installed"
