"""What lies below a folder, as people's folders are: links, hidden files, folders that cannot be read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.datasets.pictures import DEPTH_SUFFIXES
from pipeline.runtime.errors import DataError

_SYSTEM = frozenset(
    {
        "__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "lost+found",
        "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot",  # of network storage
    }
)  # fmt: skip


class Entry(NamedTuple):
    """Something below a folder: its path from there, with slashes, and why it cannot be used, if so."""

    name: str
    problem: str | None = None


def walk(folder: Path, depth: int | None = None) -> Iterator[Entry]:
    """Every file below a folder in a fixed order, following links; what is hidden or a system's own is passed over.

    Entries with a problem are links that lead nowhere, folders that cannot be listed or are named like a picture, what
    is neither file nor folder, such as a pipe, and names that are not UTF-8 (`?` stands for what is not).

    Args:
        folder: where to look.
        depth: how many folders deep; None for any depth.

    Raises:
        DataError: the folder itself cannot be listed.
    """
    problem, inside = _listed(folder)
    if problem is not None:
        raise DataError(f"{folder}: {problem}", "check its permissions")
    yield from _below("", inside, depth, frozenset({os.path.realpath(folder)}))


def _below(prefix: str, inside: list["os.DirEntry[str]"], depth: int | None, above: frozenset[str]) -> Iterator[Entry]:
    folders = []
    for item in inside:
        kind = _kind(item)
        if kind == "folder" and os.path.splitext(item.name)[1].lower() not in DEPTH_SUFFIXES:
            folders.append(item)
        else:
            problem = {"file": None, "folder": "is a folder, not a file"}.get(kind, kind)
            yield Entry(*_legible(prefix + item.name, problem))
    if depth == 0:
        return
    for item in folders:
        real = os.path.realpath(item.path)
        if real in above:  # a link back up, which would be followed for ever
            continue
        problem, within = _listed(item.path)
        if problem is not None:
            yield Entry(*_legible(prefix + item.name, problem))
        yield from _below(f"{prefix}{item.name}/", within, None if depth is None else depth - 1, above | {real})


def _legible(name: str, problem: str | None) -> tuple[str, str | None]:
    """A name that every file and terminal can hold, and the problem."""
    legible = os.fsencode(name).decode("utf-8", "replace").replace("\ufffd", "?")
    return (name, problem) if legible == name else (legible, problem or "has a name that is not UTF-8; rename it")


def _listed(folder: Path | str) -> tuple[str | None, list["os.DirEntry[str]"]]:
    try:
        with os.scandir(folder) as entries:
            visible = [item for item in entries if not item.name.startswith(".") and item.name not in _SYSTEM]
    except OSError as error:
        return f"cannot be listed: {error.strerror}", []
    return None, sorted(visible, key=lambda item: item.name)


def _kind(item: "os.DirEntry[str]") -> str:
    """`file`, `folder`, or why it is neither."""
    try:
        if item.is_dir():
            return "folder"
        if item.is_file():
            return "file"
        if item.is_symlink():
            item.stat()
        return "is not a file"
    except FileNotFoundError:
        return "is a link that leads nowhere"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
