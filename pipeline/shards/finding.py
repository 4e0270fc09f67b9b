"""Finds a shard by its digest, wherever the workspace that it lies in has gone.

A shard is looked for at the path that was recorded, then in the folders that now hold whoever asks, then in other
places: under its own name, the end of its recorded path, or another name. Its content decides: two files of one digest
are the same shard.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Shard

SHARDS = "shards"  # the folder of shards in a workspace
SUFFIXES = (".h5", ".hdf5")
_UP = 6  # folders above the one that asks
_TAIL = 3  # parts of the recorded path
_HINT = "--data FILE.h5 says where it is now, --root the workspace"


def locate_shard(digest: str, recorded: Path, home: Path, places: Sequence[Path] = (), whose: str = "") -> Path:
    """The path of the shard with a digest.

    Args:
        recorded: where it was.
        home: the folder of whoever asks, such as a run's; a workspace that holds it is looked through.
        places: other shards, and folders of shards.
        whose: who asks, for messages; `home` if empty.

    Raises:
        DataError: it is in none of these places; the message says what is where it was.
    """
    whose = whose or str(home)
    where = dict.fromkeys((recorded, *_near(recorded, home), *_in(places, recorded)))
    faults = {}
    for path in where:
        if path.is_file():
            try:
                if digest_of(path) == digest:
                    return path
            except DataError as error:
                faults[path] = error
    if recorded in faults:
        raise faults[recorded]
    others = [place for place in places if place.is_file() and place not in faults]
    given = next(iter(others), recorded)
    looked = ", ".join(str(folder) for folder in _folders(home, places) if folder.is_dir())
    elsewhere = f"; nor is it in {looked}" if looked else ""
    if given.is_file():
        raise DataError(f"{given} is not the shard that {whose} was trained on: its content differs{elsewhere}", _HINT)
    raise DataError(
        f"{recorded}: cannot be read: there is no such file, and {whose} was trained on it{elsewhere}", _HINT
    )


def digest_of(path: Path) -> str:
    """The digest that a shard records, or that its content has if it records none; empty for other HDF5 files.

    Raises:
        DataError: the file cannot be read, or is damaged.
    """
    with hdf5.reading(path) as file:
        recorded = hdf5.attribute(path, file, "digest")
        if recorded is None and hdf5.attribute(path, file, "schema") is None:
            return ""
    return recorded if isinstance(recorded, str) else Shard.open(path).digest


def _above(home: Path) -> list[Path]:
    """The folders that hold `home`, both by its name and without links."""
    return list(dict.fromkeys(folder for form in (home.absolute(), home.resolve()) for folder in form.parents[:_UP]))


def _folders(home: Path, places: Iterable[Path]) -> list[Path]:
    return [*(folder / SHARDS for folder in _above(home)), *places]


def _near(recorded: Path, home: Path) -> Iterator[Path]:
    """Where the shard lies if a workspace, or a folder with both, was moved or copied as a whole."""
    for folder in _above(home):
        for count in range(1, min(_TAIL, len(recorded.parts) - 1) + 1):
            yield folder.joinpath(*recorded.parts[-count:])
    for folder in (home, *_above(home)):
        yield from _recorded_in(folder / SHARDS, recorded)


def _in(places: Iterable[Path], recorded: Path) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from _recorded_in(place, recorded)
        else:
            yield place


def _recorded_in(folder: Path, recorded: Path) -> Iterator[Path]:
    """The shards in a folder, one of the recorded name first, and without those that would have to be read to tell."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:  # there is none, or it may not be looked into
        return
    yield folder / recorded.name
    for path in inside:
        if path.suffix.lower() in SUFFIXES and _tells_its_digest(path):
            yield path


def _tells_its_digest(path: Path) -> bool:
    try:
        with hdf5.reading(path) as file:
            return isinstance(hdf5.attribute(path, file, "digest"), str)
    except DataError:
        return False
