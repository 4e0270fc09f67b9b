"""The layout of the Washington RGB-D Object Dataset: frames, objects, categories.

    rgbd-dataset/bell_pepper/bell_pepper_2/bell_pepper_2_4_171_crop.png       RGB, 8 bit
                                           bell_pepper_2_4_171_depthcrop.png  depth, 16 bit, millimetres, 0 = missing
                                           bell_pepper_2_4_171_maskcrop.png   the object's silhouette (may be absent)
                                           bell_pepper_2_4_171_loc.txt        "x,y" of the crop's corner (may be absent)

Names are parsed from the right, <category>_<object>_<video>_<frame>_<kind>, since categories contain underscores.
Numbers may have leading zeros, suffixes may be in capitals, and images may be of any format that colour and 16-bit
depth come in (`pipeline/datasets/pictures.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt, model_validator

from pipeline.datasets.manifests import Record, load
from pipeline.datasets.pictures import WrongKindError, picture_facts, read_colour, read_depth
from pipeline.runtime.errors import DataError
from pipeline.runtime.texts import read_text

VIDEOS = (1, 2, 4)  # 30, 45 and 60 degrees above the table
EVERY = 5  # the evaluation set holds frames 1, 6, 11, ...
FETCH_HINT = "`mmssl data fetch washington-rgbd` gets it, `mmssl data sample` renders a small stand-in"

Trials = Sequence[Mapping[str, int]]  # per trial: category -> the number of the object that is left out

_NUMBERS = re.compile(r"(.+)_([0-9]{1,9})_([0-9]{1,9})_([0-9]{1,9})")


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


def numbers_of(sample: str) -> tuple[str, int, int, int] | None:
    """Category, object, video and frame of a sample's id, whose numbers may have leading zeros; None if it is none."""
    match = _NUMBERS.fullmatch(sample)
    return None if match is None else (match[1], int(match[2]), int(match[3]), int(match[4]))


def object_of(sample: str) -> str:
    """The object that a sample shows: `bell_pepper_2` of `bell_pepper_2_4_171`.

    Raises:
        DataError: it is not the id of a sample.
    """
    numbers = numbers_of(sample)
    if numbers is None:
        raise DataError(f"{sample!r} is not the id of an RGB-D frame, <category>_<object>_<video>_<frame>")
    return f"{numbers[0]}_{numbers[1]}"


def official_name(sample: str, kind: str) -> str:
    """The name that the data set gives to a file of a sample: `apple_1_1_1_crop.png`."""
    return f"{sample}_{kind}.{'txt' if kind == 'loc' else 'png'}"


def load_facts() -> Facts:
    """Loads the facts about the data set; its archive has the manifest `washington-rgbd`."""
    return load("washington-objects", Facts)


@dataclass(frozen=True, order=True)
class Frame:
    """One RGB-D frame on disk; frames sort by category, object, video and frame number.

    `names` holds, by kind, the names of files that are not called as the data set's own.
    """

    category: str
    object: int
    video: int
    frame: int
    folder: Path
    has_mask: bool = True
    has_loc: bool = True
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        """The sample id, such as `apple_1_1_1`."""
        return f"{self.category}_{self.object}_{self.video}_{self.frame}"

    @property
    def rgb(self) -> Path:
        return self._file("crop")

    @property
    def depth(self) -> Path:
        return self._file("depthcrop")

    @property
    def mask(self) -> Path | None:
        return self._file("maskcrop") if self.has_mask else None

    @property
    def loc(self) -> Path | None:
        return self._file("loc") if self.has_loc else None

    def _file(self, kind: str) -> Path:
        return self.folder / self.names.get(kind, official_name(self.id, kind))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files from which an image store is made."""
        return (self.rgb, self.depth, *([self.loc] if self.loc else []))

    def read(self, *, corner: bool) -> "Crop":
        """Decodes it; see `read_frame`."""
        return read_frame(self, corner=corner)


class Crop(NamedTuple):
    """The arrays of a frame, as read."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    depth: npt.NDArray[np.uint16]  # [H, W], millimetres, 0 = missing
    mask: npt.NDArray[np.bool_] | None  # [H, W], true on the object
    corner: tuple[int, int] | None  # x, y of the crop's first pixel in the 640 x 480 frame, counted from 1, 1


def read_frame(frame: Frame, *, mask: bool = False, corner: bool = True) -> Crop:
    """Decodes a frame's files: the mask only if asked for, the corner unless it is not needed.

    The depth must have the size of the colour, upright or as it is stored.

    Raises:
        DataError: a file is missing or damaged, the depth is not 16-bit, the sizes differ, or the corner is asked for
            and the colour is turned by its EXIF data, so that the corner is not in its place.
    """
    rgb, depth = read_colour(frame.rgb), _millimetres(frame.depth)
    needs_corner = corner and frame.loc is not None
    turned = (needs_corner or depth.shape != rgb.shape[:2]) and picture_facts(frame.rgb).turned
    sizes = {rgb.shape[:2], rgb.shape[1::-1]} if turned else {rgb.shape[:2]}
    silhouette = None
    if mask and frame.mask is not None:
        silhouette = read_colour(frame.mask).max(axis=2) > 0
    for path, array in ((frame.depth, depth), (frame.mask, silhouette)):
        if array is not None and array.shape not in sizes:
            raise DataError(
                f"{path}: {array.shape[1]} x {array.shape[0]} pixels, but its RGB image has "
                f"{rgb.shape[1]} x {rgb.shape[0]}",
                "fetch or unpack the archive again",
            )
    place = None
    if corner and frame.loc is not None:
        if turned:
            raise DataError(
                f"{frame.rgb}: is turned by its EXIF data, so that {frame.loc.name} is not its corner",
                "take the camera's own pictures, not turned ones",
            )
        place = _read_loc(frame.loc)
    return Crop(rgb, depth, silhouette, place)


def _millimetres(path: Path) -> npt.NDArray[np.uint16]:
    try:
        depth = read_depth(path)
        kind = None if depth.dtype == np.uint16 else "this holds other numbers"
    except WrongKindError as error:
        kind = error.message.removeprefix(f"{path}: ").replace("has", "this has", 1)
    if kind is not None:
        raise DataError(
            f"{path}: depth must be one channel of 16 bits in millimetres, {kind}",
            "take the data set's own files, not a converted copy",
        )
    return depth.astype(np.uint16, copy=False)


def _read_loc(path: Path) -> tuple[int, int]:
    try:
        x, y = read_text(path).strip().split(",")
        return int(x), int(y)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: should hold the crop's corner as x,y: {error}") from error


# The Kinect of the Washington data set.
FOCAL = 570.3  # focal length in pixels
CENTRE = (320.0, 240.0)  # x, y of the optical axis in the 640 x 480 frame, counted from 1, 1
