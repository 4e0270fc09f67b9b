"""Paths as people write them, and the folders that the environment names."""

import os
from pathlib import Path

from pipeline.runtime.errors import UsageError


def expanded(path: Path | str) -> Path:
    """The path with a leading `~` or `~NAME` replaced by that home folder, which no shell does in a file or a variable.

    A name that begins with `~` and means no home folder is taken as it is, if there is such a file or folder.

    Raises:
        UsageError: nothing is known of that home folder.
    """
    given = Path(path)
    try:
        return given.expanduser()
    except RuntimeError:
        if given.exists() or (len(given.parts) == 1 and given.suffix):
            return given
        raise UsageError(
            f"{given}: it is not known where the home folder {given.parts[0]} is", "write the path without ~"
        ) from None


def shared_data() -> Path | None:
    """The folder of data that several workspaces share, `$MMSSL_DATA`; None if the variable is not set."""
    folder = os.environ.get("MMSSL_DATA")
    return expanded(folder) if folder else None
