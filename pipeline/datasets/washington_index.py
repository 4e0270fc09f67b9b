"""Which frames of the Washington layout there are: found in folders as people have them, and counted.

A file's name says everything: category, object, video, frame and kind. So frames may lie in `<category>/<object>/` as
in the data set, in `<object>/` alone as the archives of single objects unpack, or all in one folder; only a folder that
is named after another object is a contradiction. Whatever looks like a frame is used, left out with a reason, or, as
the data set's authors do it, not taken: the evaluation set is every fifth frame of three of the videos.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

from pipeline.datasets import archives
from pipeline.datasets.pictures import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from pipeline.datasets.walking import walk
from pipeline.datasets.washington import EVERY, FETCH_HINT, VIDEOS, Facts, Frame, numbers_of, official_name
from pipeline.runtime.errors import DataError

Taken = Literal["evaluation", "all"]
EVALUATION = (
    f"videos {', '.join(map(str, VIDEOS[:-1]))} and {VIDEOS[-1]}, and of these every fifth frame (1, 6, 11, ...)"
)
ALL_HINT = "`mmssl preprocess rgbd --frames all` takes all of them"

_FILE = re.compile(r"(?P<id>.+_\d+_\d+_\d+)_(?P<kind>[A-Za-z]+)(?P<suffix>\.[A-Za-z]+)", re.ASCII)
_OBJECT = re.compile(r"(.+)_0*(\d{1,9})", re.ASCII)
_SUFFIXES = {"crop": COLOUR_SUFFIXES, "depthcrop": DEPTH_SUFFIXES, "maskcrop": COLOUR_SUFFIXES, "loc": {".txt"}}
_NEEDED = ("crop", "depthcrop")
_DEEPEST = 4  # folders above a frame


@dataclass(frozen=True, order=True)
class Skipped:
    """Something that was left out although it looks like a frame, or half of one."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Index:
    """Every usable frame in order, what was left out, and the ids of usable frames that were not taken."""

    frames: tuple[Frame, ...]
    skipped: tuple[Skipped, ...] = ()
    not_taken: tuple[str, ...] = ()

    @cached_property
    def objects(self) -> dict[tuple[str, int], tuple[Frame, ...]]:
        """(category, object number) -> its frames, in order."""
        grouped: dict[tuple[str, int], list[Frame]] = {}
        for frame in self.frames:
            grouped.setdefault((frame.category, frame.object), []).append(frame)
        return {key: tuple(frames) for key, frames in grouped.items()}

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Category names in alphabetical order: a category's position is its class index."""
        return tuple(sorted({frame.category for frame in self.frames}))


def find_dataset(root: Path) -> Path:
    """The folder that frames lie in or below: `root` itself, or `rgbd-dataset` or `rgbd-dataset_eval` in it.

    Raises:
        DataError: there is none; archives that are there instead are named.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder", FETCH_HINT)
    places = [folder for folder in (root / "rgbd-dataset", root / "rgbd-dataset_eval", root) if folder.is_dir()]
    for folder in places:
        if any(folder.glob("*/*_[0-9]*/")) or is_washington(folder):
            return folder
    if (packed := packed_in(root)) is not None:
        raise packed
    raise DataError(
        f"{root}: no RGB-D data set in it (looked for rgbd-dataset/<category>/<category>_<number>/)", FETCH_HINT
    )


def packed_in(root: Path) -> DataError | None:
    """What to say of archives that lie where frames should; None if there are none."""
    for folder in (root / "rgbd-dataset", root / "rgbd-dataset_eval", root):
        found = sorted(path.name for path in folder.glob("[!.]*") if archives.NAMES.fullmatch(path.name))
        if found:
            more = f" and {len(found) - 1} more archives" if len(found) > 1 else ""
            command = "unzip '*.zip'" if found[0].lower().endswith(".zip") else "for f in *.t*; do tar -xf $f; done"
            return DataError(
                f"{folder}: holds {found[0]}{more}, but no frames",
                f"unpack: `cd {shlex.quote(str(folder))}; {command}`",
            )
    return None


def is_washington(folder: Path) -> bool:
    """Whether a folder holds frames by their names, in folders of categories and objects, of objects, or in none."""
    file = "*_*_*_*.*"
    places = (file, f"*/{file}", f"*/*/{file}", f"*/*/*/{file}")
    names = chain.from_iterable(map(folder.glob, places))
    return any((match := _FILE.fullmatch(path.name)) and match["kind"].lower() == "depthcrop" for path in names)


def index_dataset(root: Path, *, strict: bool = False, taken: Taken = "evaluation") -> Index:
    """Indexes the data set at `root` (see `find_dataset`), full or evaluation archive, without opening any image.

    Args:
        root: the folder.
        strict: whether an unusable frame is an error.
        taken: the frames of the evaluation set, or all.

    Raises:
        DataError: there is no data set, or no frame in it, or (with `strict`) a frame without its partner.
    """
    folder = find_dataset(root)
    problems: dict[str, str] = {}
    index = index_names(_names(folder, problems), folder, strict=strict, taken=taken, problems=problems)
    if not index.frames and index.not_taken:
        raise DataError(
            f"{folder}: not one of its {len(index.not_taken)} frames is in the evaluation set, "
            f"{EVALUATION}; the first frame here is {index.not_taken[0]}",
            ALL_HINT,
        )
    if not index.frames:
        first = f": {index.skipped[0]}" if index.skipped else ""
        raise DataError(f"{folder}: not one frame in it has both its RGB and its depth image{first}", FETCH_HINT)
    return index


def _names(folder: Path, problems: dict[str, str]) -> Iterator[str]:
    for entry in walk(folder, _DEEPEST):
        if entry.problem is not None:
            problems[entry.name] = entry.problem
        yield entry.name


def index_names(
    names: Iterable[str],
    folder: Path = Path(),
    *,
    strict: bool = False,
    taken: Taken = "evaluation",
    problems: Mapping[str, str] | None = None,
) -> Index:
    """Indexes a list of file names, such as an archive's, whether or not the files exist.

    Args:
        names: in any order, with or without their folders (without, a frame's folder is `folder`).
        folder: what the names are relative to.
        taken: the frames of the evaluation set, or all of them.
        problems: name -> why that file cannot be used; may grow while names are taken.

    Raises:
        DataError: with `strict`, if anything had to be left out; the message names the first.
    """
    problems = {} if problems is None else problems
    files: dict[tuple[str, int, int, int], dict[str, str]] = {}  # frame -> kind -> name
    skipped: list[Skipped] = []
    broken: dict[tuple[str, int, int, int], str] = {}
    packed: dict[tuple[str, int], str] = {}  # object -> its archive
    for name in sorted(names, key=_order):
        parent, _, file = name.rpartition("/")
        if file.startswith("."):
            continue
        if archives.NAMES.fullmatch(file):
            if (of := _OBJECT.fullmatch(file.split(".")[0])) is not None:
                packed[of[1], int(of[2])] = name
            continue
        match = _FILE.fullmatch(file)
        kind = match["kind"].lower() if match else ""
        numbers = numbers_of(match["id"]) if match else None
        if match and numbers and kind in _NEEDED and match["suffix"].lower() not in _SUFFIXES[kind]:
            broken.setdefault(numbers, f"{file} is of a format that is not read")
        elif match is None or numbers is None or match["suffix"].lower() not in _SUFFIXES.get(kind, ()):
            if name in problems or Path(file).suffix.lower() in COLOUR_SUFFIXES:
                reason = "does not read as <category>_<object>_<video>_<frame>_<kind>.png"
                skipped.append(Skipped(name, problems.get(name, reason)))
        elif (place := _misplaced(parent, numbers)) is not None:
            skipped.append(Skipped(name, f"belongs into {place}/"))
        elif name in problems:
            if kind in _NEEDED:
                broken.setdefault(numbers, f"{file} {problems[name]}")
        elif kind in (present := files.setdefault(numbers, {})):
            skipped.append(Skipped(name, f"is the same image of the same frame as {present[kind]}, which is taken"))
        else:
            present[kind] = name

    frames: list[Frame] = []
    not_taken: list[tuple[str, int, int, int]] = []
    folders: dict[str, Path] = {}  # shared by the frames of an object
    for numbers in files.keys() | broken.keys():
        present = files.get(numbers, {})
        sample = "_".join(map(str, numbers))
        in_evaluation = numbers[2] in VIDEOS and numbers[3] % EVERY == 1
        missing = [official_name(sample, kind) for kind in _NEEDED if kind not in present]
        if taken == "evaluation" and not in_evaluation:
            not_taken.append(numbers)
        elif numbers in broken and missing:
            skipped.append(Skipped(sample, broken[numbers]))
        elif missing:
            skipped.append(Skipped(sample, f"no {' and no '.join(missing)}"))
        else:
            frames.append(_frame(numbers, present, folder, folders))
    known = {numbers[:2] for numbers in files}
    skipped += [Skipped(name, "is an archive that is not unpacked") for key, name in packed.items() if key not in known]
    skipped.sort()
    if strict and skipped:
        more = f" ({len(skipped) - 1} more like it)" if len(skipped) > 1 else ""
        raise DataError(f"{folder}: {skipped[0]}{more}", "without --strict such frames are listed and left out")
    return Index(
        tuple(sorted(frames)), tuple(skipped), tuple("_".join(map(str, numbers)) for numbers in sorted(not_taken))
    )


def _order(name: str) -> tuple[bool, str]:
    """The data set's own suffixes come first, so that they win over copies in other formats."""
    return not name.endswith((".png", ".txt")), name


def _misplaced(parent: str, numbers: tuple[str, int, int, int]) -> str | None:
    """Where a file belongs if its folder is named after another object, or its category's folder after another one."""
    above = parent.split("/")
    match = _OBJECT.fullmatch(above[-1])
    if match is not None and (match[1], int(match[2])) != numbers[:2]:
        return f"{numbers[0]}/{numbers[0]}_{numbers[1]}"
    return None


def _frame(
    numbers: tuple[str, int, int, int], present: Mapping[str, str], folder: Path, folders: dict[str, Path]
) -> Frame:
    """A frame in the folder of its files, which are named if they have other names than the official ones.

    If colour and depth lie in different folders, all are named from the data set's.
    """
    sample = "_".join(map(str, numbers))
    parents = {name.rpartition("/")[0] for name in present.values()}
    parent = parents.pop() if len(parents) == 1 else ""
    local = {kind: name.removeprefix(f"{parent}/") for kind, name in present.items()}
    names = {kind: name for kind, name in local.items() if name != official_name(sample, kind)}
    if parent not in folders:
        folders[parent] = folder / parent
    return Frame(*numbers, folders[parent], "maskcrop" in present, "loc" in present, names)


def deviations(index: Index, facts: Facts) -> list[str]:
    """Every way in which an index differs from the data set's facts, one sentence each; empty for a complete archive.

    A missing or unknown category is reported once, not for each of its objects and frames.
    """
    differences: list[str] = []
    present = set(index.categories)
    differences += [f"category {name} is missing" for name in sorted(facts.objects.keys() - present)]
    differences += [f"category {name} is not one of the data set's" for name in sorted(present - facts.objects.keys())]
    for category in sorted(present & facts.objects.keys()):
        numbers = {number for name, number in index.objects if name == category}
        expected = dict(zip(facts.objects[category], facts.frames[category], strict=True))
        for number in sorted(expected.keys() | numbers):
            name = f"{category}_{number}"
            if number not in numbers:
                differences.append(f"object {name} is missing")
            elif number not in expected:
                differences.append(f"object {name} is not one of the data set's")
            elif expected[number] and expected[number] != (have := len(index.objects[category, number])):
                differences.append(f"object {name} has {have} frames, not {expected[number]}")
    for kind, have, total in (
        ("categories", len(index.categories), facts.totals.categories),
        ("objects", len(index.objects), facts.totals.objects),
        ("frames", len(index.frames), facts.totals.frames),
    ):
        if have != total:
            differences.append(f"{have:,} {kind} in all, not {total:,}")
    return differences
