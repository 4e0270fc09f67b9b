"""The Washington RGB-D Object Dataset's own layout: frames, objects, categories, the ten trials, the labelled 5 %.

    rgbd-dataset/bell_pepper/bell_pepper_2/bell_pepper_2_4_171_crop.png       RGB, 8 bit
                                           bell_pepper_2_4_171_depthcrop.png  depth, 16 bit, millimetres, 0 = missing
                                           bell_pepper_2_4_171_maskcrop.png   the object's silhouette (may be absent)
                                           bell_pepper_2_4_171_loc.txt        "x,y" of the crop's corner (may be absent)

A name reads from the right, <category>_<object>_<video>_<frame>_<kind>, since categories contain underscores.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import PositiveInt, model_validator

from pipeline.errors import DataError, UsageError
from pipeline.manifests import Record, load

_log = logging.getLogger(__name__)

VIDEOS = (1, 2, 4)  # 30, 45 and 60 degrees above the table
EVERY = 5  # the evaluation set holds frames 1, 6, 11, ...
TRIALS_FILE = "testinstance_ids.txt"
FETCH_HINT = "`mmssl data fetch washington-rgbd` gets it, `mmssl data sample` renders a small stand-in"

Trials = Sequence[Mapping[str, int]]  # per trial: category -> the number of the object that is left out

_FRAME_FILE = re.compile(r"(?P<id>(?P<object>(?P<category>.+)_\d+)_\d+_\d+)_(?P<kind>[a-z]+)\.(?:png|txt)")
_NUMBERS = re.compile(r"(.+)_(\d+)_(\d+)_(\d+)")
_KINDS = frozenset({"crop", "depthcrop", "maskcrop", "loc"})
_TRIAL_HEADER = re.compile(r"\*+\s*trial\s+(\d+)\s*\*+")


class Totals(Record):
    """How much there is in all."""

    categories: PositiveInt
    objects: PositiveInt
    frames: PositiveInt


class Facts(Record):
    """`data_manifests/washington-objects.toml`: what an unpacked archive must hold, and the authors' trials."""

    totals: Totals
    objects: Mapping[str, tuple[PositiveInt, ...]]  # category -> the objects' numbers, which have gaps
    frames: Mapping[str, tuple[int, ...]]  # category -> frames of each of them; 0 = not known
    left_out: Mapping[str, tuple[PositiveInt, ...]]  # category -> the object left out in each trial

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Facts":
        if not self.objects.keys() == self.frames.keys() == self.left_out.keys():
            raise ValueError("objects, frames and left_out must have the same categories")
        for category, numbers in self.objects.items():
            if len(self.frames[category]) != len(numbers):
                raise ValueError(f"{category}: as many frame counts as objects are needed")
            if not set(self.left_out[category]) <= set(numbers):
                raise ValueError(f"{category}: a trial leaves out an object that does not exist")
        if len({len(numbers) for numbers in self.left_out.values()}) != 1:
            raise ValueError("every category must take part in every trial")
        return self

    @property
    def trials(self) -> "Trials":
        """The ten trials in order."""
        count = len(next(iter(self.left_out.values())))
        return [{category: numbers[k] for category, numbers in self.left_out.items()} for k in range(count)]


def load_facts() -> Facts:
    """The data set's facts; its archive is the manifest `washington-rgbd`."""
    return load("washington-objects", Facts)


@dataclass(frozen=True, order=True)
class Frame:
    """One RGB-D frame on disk; frames sort by category, object, video and frame number."""

    category: str
    object: int
    video: int
    frame: int
    folder: Path
    has_mask: bool = True
    has_loc: bool = True

    @property
    def id(self) -> str:
        """The sample id, such as `apple_1_1_1`."""
        return f"{self.category}_{self.object}_{self.video}_{self.frame}"

    @property
    def rgb(self) -> Path:
        return self.folder / f"{self.id}_crop.png"

    @property
    def depth(self) -> Path:
        return self.folder / f"{self.id}_depthcrop.png"

    @property
    def mask(self) -> Path | None:
        return self.folder / f"{self.id}_maskcrop.png" if self.has_mask else None

    @property
    def loc(self) -> Path | None:
        return self.folder / f"{self.id}_loc.txt" if self.has_loc else None


@dataclass(frozen=True, order=True)
class Skipped:
    """Something that looks like a frame, or half of one, and was left out."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Index:
    """Every usable frame in order, and what was left out."""

    frames: tuple[Frame, ...]
    skipped: tuple[Skipped, ...] = ()

    @cached_property
    def objects(self) -> dict[tuple[str, int], tuple[Frame, ...]]:
        """(category, object number) -> its frames, in order."""
        grouped: dict[tuple[str, int], list[Frame]] = {}
        for frame in self.frames:
            grouped.setdefault((frame.category, frame.object), []).append(frame)
        return {key: tuple(frames) for key, frames in grouped.items()}

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Category names in alphabetical order: a category's place here is its class index."""
        return tuple(sorted({frame.category for frame in self.frames}))


def find_dataset(root: Path) -> Path:
    """The folder of category folders: `root` itself, or `rgbd-dataset` or `rgbd-dataset_eval` in it.

    Raises:
        DataError: there is none.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder", FETCH_HINT)
    for folder in (root / "rgbd-dataset", root / "rgbd-dataset_eval", root):
        if folder.is_dir() and any(folder.glob("*/*_[0-9]*/")):
            return folder
    raise DataError(
        f"{root}: no RGB-D data set in it (looked for rgbd-dataset/<category>/<category>_<number>/)", FETCH_HINT
    )


def index_dataset(root: Path, *, strict: bool = False) -> Index:
    """The index of the data set at `root` (see `find_dataset`), full or evaluation archive; no image is opened.

    Raises:
        DataError: there is no data set, no frame in it, or, with `strict`, a frame without its partner.
    """
    folder = find_dataset(root)
    index = index_names(_walk(folder), folder, strict=strict)
    if not index.frames:
        raise DataError(f"{folder}: not one frame with both its RGB and its depth image in it", FETCH_HINT)
    return index


def _walk(folder: Path) -> Iterator[str]:
    """`category/object/file` of everything three levels down, links followed."""
    try:
        for category in os.scandir(folder):
            for place in os.scandir(category) if category.is_dir() else ():
                if place.is_dir():
                    yield from (f"{category.name}/{place.name}/{name}" for name in os.listdir(place))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}", "check its permissions") from error


def index_names(names: Iterable[str], folder: Path = Path(), *, strict: bool = False) -> Index:
    """The index of a list of file names, such as an archive's, whether or not the files are there.

    Args:
        names: in any order; with their folders, or without (then a frame's folder is `<category>/<object>`).
        folder: what the names are relative to.

    Raises:
        DataError: with `strict`, when anything had to be left out; the message names the first.
    """
    kinds: dict[tuple[str, str], set[str]] = {}  # (folder, sample id) -> the kinds of file that it has
    skipped: list[Skipped] = []
    for name in names:
        parent, _, file = name.rpartition("/")
        if file.startswith(".") or not file.endswith((".png", ".txt")):
            continue
        match = _FRAME_FILE.fullmatch(file)
        if match is None or match["kind"] not in _KINDS:
            if file.endswith(".png"):
                skipped.append(Skipped(name, "does not read as <category>_<object>_<video>_<frame>_<kind>.png"))
            continue
        place = f"{match['category']}/{match['object']}"
        parent = parent or place
        if not f"/{parent}".endswith(f"/{place}"):
            skipped.append(Skipped(name, f"belongs into {place}/"))
            continue
        kinds.setdefault((parent, match["id"]), set()).add(match["kind"])

    frames: list[Frame] = []
    folders: dict[str, Path] = {}  # frames of one object share theirs
    for (parent, sample), found in kinds.items():
        numbers = _NUMBERS.fullmatch(sample)
        assert numbers is not None  # the file's name matched the same pattern
        category, number, video, frame = numbers[1], *(int(numbers[group]) for group in (2, 3, 4))
        if video not in VIDEOS or frame % EVERY != 1:
            continue
        missing = [f"{sample}_{kind}.png" for kind in ("crop", "depthcrop") if kind not in found]
        if missing:
            skipped.append(Skipped(sample, f"no {' and no '.join(missing)}"))
        else:
            if parent not in folders:
                folders[parent] = folder / parent
            frames.append(Frame(category, number, video, frame, folders[parent], "maskcrop" in found, "loc" in found))
    skipped.sort()
    if strict and skipped:
        more = f" ({len(skipped) - 1} more like it)" if len(skipped) > 1 else ""
        raise DataError(f"{folder}: {skipped[0]}{more}", "without --strict such frames are listed and left out")
    return Index(tuple(sorted(frames)), tuple(skipped))


def deviations(index: Index, facts: Facts) -> list[str]:
    """Every way in which an index differs from the data set's facts, one sentence each; empty for a complete archive.

    A category that is missing or unknown is one line, not one for each of its objects and frames.
    """
    found: list[str] = []
    here = set(index.categories)
    found += [f"category {name} is missing" for name in sorted(facts.objects.keys() - here)]
    found += [f"category {name} is not one of the data set's" for name in sorted(here - facts.objects.keys())]
    for category in sorted(here & facts.objects.keys()):
        numbers = {number for name, number in index.objects if name == category}
        expected = dict(zip(facts.objects[category], facts.frames[category], strict=True))
        for number in sorted(expected.keys() | numbers):
            name = f"{category}_{number}"
            if number not in numbers:
                found.append(f"object {name} is missing")
            elif number not in expected:
                found.append(f"object {name} is not one of the data set's")
            elif expected[number] and expected[number] != (have := len(index.objects[category, number])):
                found.append(f"object {name} has {have} frames, not {expected[number]}")
    for what, have, total in (
        ("categories", len(index.categories), facts.totals.categories),
        ("objects", len(index.objects), facts.totals.objects),
        ("frames", len(index.frames), facts.totals.frames),
    ):
        if have != total:
            found.append(f"{have:,} {what} in all, not {total:,}")
    return found


class Crop(NamedTuple):
    """A frame's arrays, as read."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    depth: npt.NDArray[np.uint16]  # [H, W], millimetres, 0 = missing
    mask: npt.NDArray[np.bool_] | None  # [H, W], true on the object
    corner: tuple[int, int] | None  # x, y of the crop's first pixel in the 640 x 480 frame, counted from 1, 1


MOST_PIXELS = 2**24  # the data set's frames have 640 x 480
_DEPTH_MODES = {"I;16", "I;16L", "I;16B", "I"}  # what Pillow, by version, makes of a 16-bit PNG


def _open(path: Path) -> Image.Image:
    """A decoded image; a PNG alone, and of no more pixels than a camera's has."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it declares {image.width} x {image.height} pixels")
            image.load()
            return image
    except FileNotFoundError as error:
        raise DataError(f"{path}: the file is missing") from error
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image: {error}", "fetch or unpack the archive again") from error


def read_frame(frame: Frame, *, mask: bool = False, corner: bool = True) -> Crop:
    """Decodes a frame's files; the mask only where asked for, the corner unless it is of no use.

    Raises:
        DataError: a file is missing or damaged, the depth is not 16-bit, or the sizes differ.
    """
    image = _open(frame.rgb)
    rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    raw = _open(frame.depth)
    if raw.mode not in _DEPTH_MODES:
        raise DataError(
            f"{frame.depth}: depth must be one channel of 16 bits in millimetres, this is {raw.mode!r}",
            "take the data set's own files, not a converted copy",
        )
    depth = np.asarray(raw).astype(np.uint16, copy=False)
    silhouette = None
    if mask and frame.mask is not None:
        silhouette = np.asarray(_open(frame.mask).convert("L")) > 0
    for path, array in ((frame.depth, depth), (frame.mask, silhouette)):
        if array is not None and array.shape != rgb.shape[:2]:
            raise DataError(
                f"{path}: {array.shape[1]} x {array.shape[0]} pixels, but its RGB image has "
                f"{rgb.shape[1]} x {rgb.shape[0]}",
                "fetch or unpack the archive again",
            )
    return Crop(rgb, depth, silhouette, _read_loc(frame.loc) if corner and frame.loc is not None else None)


def _read_loc(path: Path) -> tuple[int, int]:
    try:
        x, y = path.read_text(encoding="ascii").strip().split(",")
        return int(x), int(y)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: should hold the crop's corner as x,y: {error}") from error


def find_trials(root: Path) -> Path | None:
    """A data set's own `testinstance_ids.txt`, beside or in its folder, if there is one."""
    dataset = find_dataset(root)
    return next((path for path in (dataset / TRIALS_FILE, dataset.parent / TRIALS_FILE) if path.is_file()), None)


def trials_of(root: Path) -> Trials:
    """The trials that go with the data set at `root`: its own `testinstance_ids.txt`, else the official ten."""
    path = find_trials(root)
    _log.info("the trials are %s", "the official ones" if path is None else f"those of {path}")
    return load_facts().trials if path is None else read_trials(path)


def read_trials(path: Path) -> Trials:
    """The authors' `testinstance_ids.txt`: headers `****** trial N ******`, below each one object name per category.

    Raises:
        DataError: the file is missing, or is not in that format.
    """
    hint = f"the file comes with the data set, as {TRIALS_FILE}"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint) from error
    trials: list[dict[str, int]] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if header := _TRIAL_HEADER.fullmatch(line):
            if int(header[1]) != len(trials) + 1:
                raise DataError(f"{path}, line {number}: trial {header[1]} where {len(trials) + 1} should follow", hint)
            trials.append({})
        elif line:
            category, _, left_out = line.rpartition("_")
            if not trials or not category or not left_out.isdecimal() or category in trials[-1]:
                raise DataError(f"{path}, line {number}: {line!r} is not one object of a trial", hint)
            trials[-1][category] = int(left_out)
    if not trials:
        raise DataError(f"{path}: no trial in it", hint)
    return trials


def write_trials(trials: Trials) -> str:
    """The text that `read_trials` reads."""
    blocks = (
        "\n".join(
            [f"****** trial {number} ******", *(f"{name}_{left_out}" for name, left_out in sorted(trial.items()))]
        )
        for number, trial in enumerate(trials, start=1)
    )
    return "\n\n\n".join(blocks) + "\n"


@dataclass(frozen=True)
class Split:
    """A partition of an index: the left-out objects' frames to test with, all others to train with."""

    number: int
    train: tuple[Frame, ...]
    test: tuple[Frame, ...]


def split_frames(index: Index, trials: Trials, split: int) -> Split:
    """Split `split` (from 0), which is trial `split + 1`: the left-out object of every category is the test set.

    Raises:
        UsageError: there is no such split.
        DataError: index and trial disagree: a category that only one of them has, or a left-out object without frames.
    """
    if not 0 <= split < len(trials):
        raise UsageError(f"there is no split {split}: they are 0..{len(trials) - 1}")
    trial = trials[split]
    name = f"trial {split + 1}"
    if missing := sorted(set(trial) - set(index.categories)):
        raise DataError(f"{name} has categories that the data lacks: {', '.join(missing)}", FETCH_HINT)
    if missing := sorted(set(index.categories) - set(trial)):
        raise DataError(f"{name} names no left-out object of {', '.join(missing)}")
    if missing := sorted(f"{key[0]}_{key[1]}" for key in trial.items() if key not in index.objects):
        raise DataError(f"{name} leaves out objects that the data lacks: {', '.join(missing)}", FETCH_HINT)
    test = tuple(frame for frame in index.frames if trial[frame.category] == frame.object)
    train = tuple(frame for frame in index.frames if trial[frame.category] != frame.object)
    if lacking := sorted(set(index.categories) - {frame.category for frame in train}):
        raise DataError(f"{name} leaves nothing to train on of {', '.join(lacking)}", FETCH_HINT)
    return Split(split, train, test)


def labelled_ids(split: Split, fraction: float = 0.05, *, seed: int = 0) -> tuple[str, ...]:
    """Ids of the training frames that keep their label: `fraction` of them, at least one, in the frames' order.

    A uniform draw without replacement, seeded by the split and `seed`: every id gets a hash, and the smallest are
    taken. Unlike a generator's, this draw is the same whatever the order of the frames or numpy's version, and a
    missing frame hardly changes it.

    Raises:
        UsageError: `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"the labelled fraction must be above 0 and at most 1, not {fraction}")
    count = max(1, int(fraction * len(split.train) + 0.5))
    ids = [frame.id for frame in split.train]
    chosen = set(sorted(ids, key=lambda name: _ticket(name, split.number, seed))[:count])
    return tuple(name for name in ids if name in chosen)


def _ticket(name: str, split: int, seed: int) -> bytes:
    return hashlib.sha256(f"labelled/{seed}/{split}/{name}".encode()).digest()
