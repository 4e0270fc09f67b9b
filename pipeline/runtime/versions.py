"""Which versions made a file: a line of its provenance."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package and of mmssl itself ("checkout" where it runs without being installed)."""
    return {package: _version(package) for package in ("mmssl", *packages)}


@lru_cache  # some milliseconds each, and a store of images asks for every object
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "checkout" if package == "mmssl" else "not installed"
