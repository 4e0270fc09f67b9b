"""Handwritten digits as two modalities: hm (left and right half) or nm (rotated and noisy), from MNIST or scikit-learn.

hm: x = the left half of the image, w = the right half.
nm: x = the image rotated by an angle uniform in [-n, n]; w = the same image plus N(0, sigma^2), clipped to [0, 1]. Both
modalities show the same source digit. Angles and noise are drawn once, from a seed, for train and test.
All values lie in [0, 1] and are modelled as Bernoulli probabilities.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pipeline.datasets.manifests import fetch, load, read_unpacked
from pipeline.datasets.registry import DataSetCard
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.files import sweep
from pipeline.runtime.versions import versions
from pipeline.shards.shard import Features, Modality, Shard
from pipeline.shards.writing import PartData, write_shard

NAMES = ("hm-mnist", "nm-mnist", "hm-digits", "nm-digits")
CLASSES = tuple("0123456789")

_log = logging.getLogger(__name__)
_ROWS = 4096  # images processed at a time
_TEST_SHARE = 0.2  # of the bundled digits, which have no split of their own
_SPLIT_SEED = 0


@dataclass(frozen=True)
class Images:
    """The images of one part: `[N, H, W]` float32 in [0, 1], labels `[N]`, and the index of each in its source."""

    pixels: Features
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Digits from one source: both parts, and where they come from."""

    train: Images
    test: Images
    source: dict[str, Any]


def shard_name(name: str, rotation: float = 45.0, noise: float = 0.5, seed: int = 0) -> str:
    """The name of a data set, and of its file without `.h5`: `hm-mnist`, `nm-mnist-r45-n0.5`, `nm-mnist-r45-n0.5-s1`.

    Raises:
        UsageError: no such data set, an angle outside 0..180, or a negative noise or seed.
    """
    if name not in NAMES:
        raise UsageError(f"there is no data set {name!r} of digits, only {', '.join(NAMES)}")
    if name.startswith("hm-"):
        return name
    if not 0 <= rotation <= 180:
        raise UsageError(f"the rotation is {rotation} degrees, outside 0..180")
    if not 0 <= noise < math.inf:
        raise UsageError(f"the noise is {noise}, but must be a standard deviation of 0 or more")
    if seed < 0:
        raise UsageError(f"the seed is {seed}, but must be 0 or more")
    angle, sigma = (np.format_float_positional(float(value), trim="-") for value in (rotation, noise))
    return f"{name}-r{angle}-n{sigma}" + (f"-s{seed}" if seed else "")


def build(name: str, shards: Path, raw: Path, *, rotation: float = 45.0, noise: float = 0.5, seed: int = 0) -> Path:
    """Builds the shard of a digits data set in the folder `shards`, or verifies it if it exists.

    Args:
        rotation: the largest angle of nm, in degrees.
        noise: the standard deviation of nm's noise; pixels lie in [0, 1].
        seed: for nm's angles and noise.

    Raises:
        UsageError: the settings are not valid (see `shard_name`).
        DataError: the existing shard is damaged or of another data set, or MNIST cannot be obtained.
        StorageError: the disk is full or refuses.
    """
    full_name = shard_name(name, rotation, noise, seed)
    path = shards / f"{full_name}.h5"
    if path.exists():
        shard = Shard.open(path)
        if shard.dataset != full_name:
            raise DataError(f"{path}: holds the data set {shard.dataset}, not {full_name}", f"move {path} away")
        shard.verify()
        if shard.preset is not None:
            _log.info("%s exists and is intact", path)
            return path
        _log.info("%s names no preset yet: rebuilding it with the same content", path)
    sweep(shards)
    kind, source = name.split("-")
    digits = _mnist(raw) if source == "mnist" else _bundled()
    settings: dict[str, Any] = {"name": name}
    if kind == "nm":
        settings |= {"rotation": float(rotation), "noise": float(noise), "seed": seed}
    train_rng, test_rng = np.random.default_rng(seed).spawn(2)
    parts = [
        _part("train", digits.train, kind, rotation, noise, train_rng),
        _part("test", digits.test, kind, rotation, noise, test_rng),
    ]
    _, height, width = digits.train.pixels.shape
    widths = (height * (width // 2), height * (width - width // 2)) if kind == "hm" else (height * width,) * 2
    write_shard(
        path,
        dataset=full_name,
        classes=CLASSES,
        modalities=[Modality(m, n, "bernoulli") for m, n in zip("xw", widths, strict=True)],
        train=parts[0],
        test=parts[1],
        provenance={
            "made by": f"mmssl preprocess {name}",
            "settings": settings,
            "source": digits.source,
            "versions": versions("numpy", "scikit-learn"),
        },
        preset="mnist" if source == "mnist" else "digits",
    )
    _log.info("wrote %s", path)
    return path


def halves(images: Features) -> tuple[Features, Features]:
    """Left and right halves of images `[N, H, W]`, flattened row by row: `[N, H*(W//2)]` and `[N, H*(W - W//2)]`."""
    count, _, width = images.shape
    return images[:, :, : width // 2].reshape(count, -1), images[:, :, width // 2 :].reshape(count, -1)


def rotate(images: Features, degrees: NDArray[np.float64]) -> Features:
    """Rotates each square image `[N, H, H]` about its centre, counter-clockwise, by its own angle `[N]`.

    Bilinear, with zeros beyond the border, like `scipy.ndimage.rotate(order=1, mode="grid-constant", reshape=False)`,
    but for all images at once. Values in [0, 1] stay in it.
    """
    count, size, _ = images.shape
    centre = (size - 1) / 2
    grid = np.arange(size) - centre
    angles = np.deg2rad(degrees)[:, None, None]
    cos, sin = np.cos(angles), np.sin(angles)
    # where each pixel of the result lies in the source image, which gets a border one zero wide
    rows = cos * grid[:, None] + sin * grid + centre + 1
    columns = -sin * grid[:, None] + cos * grid + centre + 1
    rows, columns = rows.clip(0, size + 1), columns.clip(0, size + 1)
    top, left = np.minimum(rows.astype(np.intp), size), np.minimum(columns.astype(np.intp), size)
    down, right = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    side = size + 2
    source = np.pad(images, ((0, 0), (1, 1), (1, 1))).reshape(-1)
    corner = np.arange(count)[:, None, None] * side**2 + top * side + left
    above = source[corner] * (1 - right) + source[corner + 1] * right
    below = source[corner + side] * (1 - right) + source[corner + side + 1] * right
    rotated: Features = np.clip(above * (1 - down) + below * down, 0, 1).astype(np.float32)
    return rotated


def add_noise(images: Features, sigma: float, rng: np.random.Generator) -> Features:
    """Adds noise N(0, sigma^2) to images of any shape, and clips to [0, 1]."""
    noisy = images + np.float32(sigma) * rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(noisy, 0, 1).astype(np.float32)


def parse_idx(content: bytes, dimensions: int, name: str) -> NDArray[np.uint8]:
    """Parses an array of unsigned bytes in MNIST's idx format: two zeros, type 8, rank, big-endian sizes, values.

    Raises:
        DataError: the header differs, or does not match the length; the message calls the file `name`.
    """
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{name}: is not an idx file of unsigned bytes with {dimensions} dimensions")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != math.prod(shape):
        raise DataError(f"{name}: holds {len(content) - start:,} values, but its header declares {math.prod(shape):,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _part(part: str, images: Images, kind: str, rotation: float, noise: float, rng: np.random.Generator) -> PartData:
    # The two modalities are written one after the other, so each has its own generator.
    angle_rng, noise_rng = rng.spawn(2)
    pixels = images.pixels
    angles = angle_rng.uniform(-rotation, rotation, len(pixels))

    def left(rows: slice) -> Features:
        return halves(pixels[rows])[0]

    def right(rows: slice) -> Features:
        return halves(pixels[rows])[1]

    def rotated(rows: slice) -> Features:
        return rotate(pixels[rows], angles[rows])

    def noisy(rows: slice) -> Features:
        return add_noise(pixels[rows], noise, noise_rng)

    def blocks(make: Callable[[slice], Features]) -> Iterator[Features]:
        for start in range(0, len(pixels), _ROWS):
            block = make(slice(start, start + _ROWS))
            yield block.reshape(len(block), -1)

    x, w = (left, right) if kind == "hm" else (rotated, noisy)
    ids = [f"{part}-{index:05d}" for index in images.indices]
    return PartData({"x": blocks(x), "w": blocks(w)}, images.labels, ids)


def _mnist(raw: Path) -> Digits:
    paths = fetch("mnist", raw)

    def part(prefix: str) -> Images:
        pixels = _read_idx(paths[f"{prefix}-images-idx3-ubyte.gz"], 3)
        labels = _read_idx(paths[f"{prefix}-labels-idx1-ubyte.gz"], 1)
        return Images(_unit(pixels, 255), labels.astype(np.int64), np.arange(len(labels)))

    manifest = load("mnist")
    checksums = {file.name: file.sha256 for file in manifest.files}
    return Digits(part("train"), part("t10k"), {"title": manifest.title, "sha256": checksums})


def _unit(values: NDArray[Any], largest: int) -> Features:
    return (values / np.float32(largest)).astype(np.float32)


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    return parse_idx(read_unpacked(path), dimensions, str(path))


def _bundled() -> Digits:
    bunch = load_digits()
    pixels = _unit(bunch.images, 16)  # 8 x 8
    labels = bunch.target.astype(np.int64)
    indices = np.arange(len(labels))
    # There is no split: the test set is one fifth of each class, always the same rows.
    train, test = (
        np.sort(part)
        for part in train_test_split(indices, test_size=_TEST_SHARE, stratify=labels, random_state=_SPLIT_SEED)
    )
    title = f"the {len(labels)} digits bundled with scikit-learn (sklearn.datasets.load_digits)"
    return Digits(
        Images(pixels[train], labels[train], train),
        Images(pixels[test], labels[test], test),
        {"title": title, "split": "stratified, one fifth for test", "split seed": _SPLIT_SEED},
    )


def _card(name: str, title: str, variants: str | None = None) -> DataSetCard:
    def make(root: Path, options: Mapping[str, str]) -> Path:
        noise = {key: float(options[key]) for key in ("rotation", "noise") if key in options}
        return build(name, root / "shards", root / "raw", seed=int(options.get("seed", 0)), **noise)

    return DataSetCard(name, title, make, re.compile(name + variants) if variants else None)


_NOISY = r"(?:-r(?P<rotation>\d+(?:\.\d+)?)-n(?P<noise>\d+(?:\.\d+)?))?(?:-s(?P<seed>\d+))?"
CARDS = (
    _card("hm-mnist", "MNIST's left and right halves"),
    _card("nm-mnist", "MNIST rotated, and noisy", _NOISY),
    _card("hm-digits", "the halves of scikit-learn's 1,797 digits"),
    _card("nm-digits", "scikit-learn's 1,797 digits rotated, and noisy", _NOISY),
)
