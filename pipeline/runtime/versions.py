"""The versions of the packages that made a file, for its provenance."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package and of mmssl itself ("checkout" if it runs without being installed)."""
    return {package: _version(package) for package in ("mmssl", *packages)}


@lru_cache  # takes milliseconds, and an image store asks once per object
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "checkout" if package == "mmssl" else "not installed"
