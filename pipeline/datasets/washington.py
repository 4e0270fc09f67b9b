"""The layout of the Washington RGB-D Object Dataset: frames, objects, categories.

    rgbd-dataset/bell_pepper/bell_pepper_2/bell_pepper_2_4_171_crop.png       RGB, 8 bit
                                           bell_pepper_2_4_171_depthcrop.png  depth, 16 bit, millimetres, 0 = missing
                                           bell_pepper_2_4_171_maskcrop.png   the object's silhouette (may be absent)
                                           bell_pepper_2_4_171_loc.txt        "x,y" of the crop's corner (may be absent)

Names are parsed from the right, <category>_<object>_<video>_<frame>_<kind>, since categories contain underscores.
"""

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

from pipeline.datasets.manifests import Record, load
from pipeline.runtime.errors import DataError
from pipeline.runtime.texts import read_text

_log = logging.getLogger(__name__)

VIDEOS = (1, 2, 4)  # 30, 45 and 60 degrees above the table
EVERY = 5  # the evaluation set holds frames 1, 6, 11, ...
FETCH_HINT = "`mmssl data fetch washington-rgbd` gets it, `mmssl data sample` renders a small stand-in"

Trials = Sequence[Mapping[str, int]]  # per trial: category -> the number of the object that is left out

_FRAME_FILE = re.compile(r"(?P<id>(?P<object>(?P<category>.+)_\d+)_\d+_\d+)_(?P<kind>[a-z]+)\.(?:png|txt)")
_NUMBERS = re.compile(r"(.+)_(\d+)_(\d+)_(\d+)")
_KINDS = frozenset({"crop", "depthcrop", "maskcrop", "loc"})


class Totals(Record):
    """The size of the whole data set."""

    categories: PositiveInt
    objects: PositiveInt
    frames: PositiveInt


class Facts(Record):
    """`data_manifests/washington-objects.toml`: what an unpacked archive must hold, and the authors' trials."""

    totals: Totals
    objects: Mapping[str, tuple[PositiveInt, ...]]  # category -> the objects' numbers, which have gaps
    frames: Mapping[str, tuple[int, ...]]  # category -> frame count of each object; 0 = not known
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


def object_of(sample: str) -> str:
    """The object that a sample shows: `bell_pepper_2` of `bell_pepper_2_4_171`.

    Raises:
        DataError: it is not the id of a sample.
    """
    match = _NUMBERS.fullmatch(sample)
    if match is None:
        raise DataError(f"{sample!r} is not the id of an RGB-D frame, <category>_<object>_<video>_<frame>")
    return f"{match[1]}_{match[2]}"


def load_facts() -> Facts:
    """Loads the facts about the data set; its archive has the manifest `washington-rgbd`."""
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

    @property
    def files(self) -> tuple[Path, ...]:
        """The files from which an image store is made."""
        return (self.rgb, self.depth, *([self.loc] if self.loc else []))

    def read(self, *, corner: bool) -> "Crop":
        """Decodes it; see `read_frame`."""
        return read_frame(self, corner=corner)


@dataclass(frozen=True, order=True)
class Skipped:
    """Something that was left out although it looks like a frame, or half of one."""

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
        """Category names in alphabetical order: a category's position is its class index."""
        return tuple(sorted({frame.category for frame in self.frames}))


def find_dataset(root: Path) -> Path:
    """The folder that holds the category folders: `root` itself, or `rgbd-dataset` or `rgbd-dataset_eval` in it.

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
    """Indexes the data set at `root` (see `find_dataset`), full or evaluation archive, without opening any image.

    Raises:
        DataError: there is no data set, or no frame in it, or (with `strict`) a frame without its partner.
    """
    folder = find_dataset(root)
    index = index_names(_walk(folder), folder, strict=strict)
    if not index.frames:
        raise DataError(f"{folder}: not one frame in it has both its RGB and its depth image", FETCH_HINT)
    return index


def _walk(folder: Path) -> Iterator[str]:
    """Yields `category/object/file` for everything three levels down, following links."""
    try:
        for category in os.scandir(folder):
            for instance in os.scandir(category) if category.is_dir() else ():
                if instance.is_dir():
                    yield from (f"{category.name}/{instance.name}/{name}" for name in os.listdir(instance))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}", "check its permissions") from error


def index_names(names: Iterable[str], folder: Path = Path(), *, strict: bool = False) -> Index:
    """Indexes a list of file names, such as an archive's, whether or not the files exist.

    Args:
        names: in any order, with or without their folders (without, a frame's folder is `<category>/<object>`).
        folder: what the names are relative to.

    Raises:
        DataError: with `strict`, if anything had to be left out; the message names the first.
    """
    kinds: dict[tuple[str, str], set[str]] = {}  # (folder, sample id) -> its kinds of file
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
    folders: dict[str, Path] = {}  # shared by the frames of an object
    for (parent, sample), present in kinds.items():
        numbers = _NUMBERS.fullmatch(sample)
        assert numbers is not None  # the file's name has matched the same pattern
        category, number, video, frame = numbers[1], *(int(numbers[group]) for group in (2, 3, 4))
        if video not in VIDEOS or frame % EVERY != 1:
            continue
        missing = [f"{sample}_{kind}.png" for kind in ("crop", "depthcrop") if kind not in present]
        if missing:
            skipped.append(Skipped(sample, f"no {' and no '.join(missing)}"))
        else:
            if parent not in folders:
                folders[parent] = folder / parent
            frames.append(
                Frame(category, number, video, frame, folders[parent], "maskcrop" in present, "loc" in present)
            )
    skipped.sort()
    if strict and skipped:
        more = f" ({len(skipped) - 1} more like it)" if len(skipped) > 1 else ""
        raise DataError(f"{folder}: {skipped[0]}{more}", "without --strict such frames are listed and left out")
    return Index(tuple(sorted(frames)), tuple(skipped))


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


class Crop(NamedTuple):
    """The arrays of a frame, as read."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    depth: npt.NDArray[np.uint16]  # [H, W], millimetres, 0 = missing
    mask: npt.NDArray[np.bool_] | None  # [H, W], true on the object
    corner: tuple[int, int] | None  # x, y of the crop's first pixel in the 640 x 480 frame, counted from 1, 1


MOST_PIXELS = 2**24  # accepted per image; the data set's frames have 640 x 480
_DEPTH_MODES = {"I;16", "I;16L", "I;16B", "I"}  # of a 16-bit PNG, depending on the version of Pillow


def _open(path: Path) -> Image.Image:
    """Decodes an image; only PNG files are accepted, with no more pixels than a camera has."""
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
    """Decodes a frame's files: the mask only if asked for, the corner unless it is not needed.

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
        x, y = read_text(path).strip().split(",")
        return int(x), int(y)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: should hold the crop's corner as x,y: {error}") from error


# The Kinect of the Washington data set.
FOCAL = 570.3  # focal length in pixels
CENTRE = (320.0, 240.0)  # x, y of the optical axis in the 640 x 480 frame, counted from 1, 1
