"""Which versions made a file: a line of its provenance."""

from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package and of mmssl itself ("checkout" where it runs without being installed)."""
    found = {}
    for package in ("mmssl", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "checkout" if package == "mmssl" else "not installed"
    return found
