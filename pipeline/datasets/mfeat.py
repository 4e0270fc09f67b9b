"""Multiple Features: 2,000 handwritten digits as six views, each a kind of features of the same images.

    fou  76 Fourier coefficients of the shape       pix  240 means of 2 x 3 pixels
    fac 216 profile correlations                    zer  47 Zernike moments
    kar  64 Karhunen-Loeve coefficients             mor   6 morphological features

R. Duin, UCI Machine Learning Repository, data set 72, CC BY 4.0. A view is read from `mfeat-<view>.csv.gz` (a header of
column numbers, the digit in the last column) or from the archive's own `mfeat-<view>` (plain text without header, 200
rows per digit in order). The rows of all views are the same digits. There is no official split: the test part is one
fifth of each class, always the same rows. Features are standardised and modelled as Gaussian.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from pipeline.datasets import archives
from pipeline.datasets.manifests import find, load, places, read_unpacked
from pipeline.datasets.registry import DataSetCard
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import sha256, sweep
from pipeline.runtime.versions import versions
from pipeline.shards.schema import Features, Modality
from pipeline.shards.shard import Shard
from pipeline.shards.writing import PartData, write_shard

NAME = "mfeat"
VIEWS = {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}  # name -> number of features
CLASSES = tuple("0123456789")

_log = logging.getLogger(__name__)
_ROWS_PER_DIGIT = 200
_TEST_SHARE = 0.2
_SPLIT_SEED = 0


@dataclass(frozen=True)
class View:
    """One view: values float64 `[N, D]`, digits int64 `[N]`, and the file they come from."""

    values: NDArray[np.float64]
    digits: NDArray[np.int64]
    source: str


def build(shards: Path, raw: Path) -> Path:
    """Builds the shard `mfeat.h5` in the folder `shards`, or verifies it if it exists.

    Raises:
        DataError: a view is missing or damaged, or the existing shard is.
        StorageError: the disk is full or refuses.
    """
    path = shards / f"{NAME}.h5"
    if path.exists():
        shard = Shard.open(path)
        if shard.dataset != NAME:
            raise DataError(f"{path}: holds the data set {shard.dataset}, not {NAME}", f"move {path} away")
        shard.verify()
        _log.info("%s exists and is intact", path)
        return path
    paths = locate(raw)
    views = read(paths)
    sweep(shards)
    digits = next(iter(views.values())).digits
    train, test = (
        np.sort(part)
        for part in train_test_split(
            np.arange(len(digits)), test_size=_TEST_SHARE, stratify=digits, random_state=_SPLIT_SEED
        )
    )
    features = {name: standardise(view.values, train) for name, view in views.items()}

    def part(rows: NDArray[np.int64]) -> PartData:
        return PartData(
            {name: values[rows] for name, values in features.items()}, digits[rows], [f"{row:04d}" for row in rows]
        )

    write_shard(
        path,
        dataset=NAME,
        classes=CLASSES,
        modalities=[Modality(name, width, "gaussian") for name, width in VIEWS.items()],
        train=part(train),
        test=part(test),
        provenance={
            "made by": f"mmssl preprocess {NAME}",
            "features": "standardised with the mean and standard deviation of the training rows",
            "source": {
                "title": load(NAME).title,
                "sha256": _checksums(paths),
                "split": "stratified, one fifth for test",
                "split seed": _SPLIT_SEED,
            },
            "versions": versions("numpy", "scikit-learn"),
        },
    )
    _log.info("wrote %s", path)
    return path


def _checksums(paths: Mapping[str, Path]) -> dict[str, str]:
    """By file, its sha256; of the known files, however they are packed here, the one on record."""
    known = dict(zip(VIEWS, load(NAME).files, strict=True))
    return dict(
        (known[view].name, known[view].sha256) if is_csv(path) else (path.name, sha256(path))
        for view, path in paths.items()
    )


def locate(raw: Path) -> dict[str, Path]:
    """Finds the file of each view in `raw/mfeat` or `$MMSSL_DATA/mfeat`; CSV files are verified by their checksums.

    Raises:
        DataError: a view is missing, or a CSV file has other content than the known one.
    """
    manifest = load(NAME)
    folders = places(raw, NAME)
    found = {}
    for view, file in zip(VIEWS, manifest.files, strict=True):
        text = (place / f"mfeat-{view}{suffix}" for place in folders for suffix in ("", ".gz", ".txt"))
        path = find(file, folders) or next((path for path in text if path.is_file()), None)
        if path is None:
            looked = " or ".join(map(str, folders))
            packed = [
                path for place in folders for path in sorted(place.glob("[!.]*")) if archives.NAMES.fullmatch(path.name)
            ]
            instead = f"; {packed[0]} is there, but not unpacked" if packed else ""
            raise DataError(
                f"the view {view} of {NAME} is missing: neither {file.name} nor mfeat-{view} is in {looked}{instead}",
                f"unpack {packed[0]}, so that mfeat-{view} lies beside it"
                if packed
                else "download data set 72 (multiple+features.zip) from archive.ics.uci.edu and put its files "
                f"{', '.join(f'mfeat-{name}' for name in VIEWS)} into {folders[0]}",
            )
        found[view] = path
    return found


def read(paths: Mapping[str, Path]) -> dict[str, View]:
    """Reads the views from their files, in the order of `VIEWS`, and checks that they show the same digits.

    Raises:
        DataError: a file cannot be read or is not in its format, or two views have different digits.
    """
    views = {}
    for name, width in VIEWS.items():
        path = paths[name]
        parse = parse_csv if is_csv(path) else parse_text
        views[name] = parse(read_unpacked(path), width, str(path))
    check_digits(list(views.values()))
    return views


def is_csv(path: Path) -> bool:
    """Whether a view's file is one of the known CSV files, packed or not."""
    return path.name.removesuffix(".gz").endswith(".csv")


def parse_csv(content: bytes, width: int, name: str) -> View:
    """Parses a view from CSV: a header line of column numbers, then rows of `width` values and the digit.

    Raises:
        DataError: it is not in that format; the message calls the file `name` and gives the line.
    """
    lines = [line.split(",") for line in _lines(content, name)]
    if not lines or lines[0][:width] != [str(column) for column in range(width)]:
        raise DataError(f"{name}, line 1: is not a header of column numbers 0..{width - 1}")
    values, digits = [], []
    for number, fields in enumerate(lines[1:], start=2):
        values.append(_values(fields[:-1], width, name, number))
        if fields[-1].strip() not in CLASSES:
            raise DataError(f"{name}, line {number}: its last column is {fields[-1]!r}, not a digit")
        digits.append(int(fields[-1]))
    if not values:
        raise DataError(f"{name}: has a header, but no rows")
    return View(np.array(values), np.array(digits, np.int64), name)


def parse_text(content: bytes, width: int, name: str, rows_per_digit: int = _ROWS_PER_DIGIT) -> View:
    """Parses a view from the archive's plain text: rows of `width` values, the digits 0 to 9 one after the other.

    Raises:
        DataError: it is not in that format; the message calls the file `name` and gives the line.
    """
    values = [_values(line.split(), width, name, number) for number, line in enumerate(_lines(content, name), start=1)]
    digits = np.repeat(np.arange(len(CLASSES)), rows_per_digit)
    if len(values) != len(digits):
        raise DataError(f"{name}: has {len(values):,} rows, not {rows_per_digit} for each of ten digits")
    return View(np.array(values), digits, name)


def check_digits(views: Sequence[View]) -> None:
    """Checks that all views have the same digits in the same order.

    Raises:
        DataError: they do not.
    """
    first = views[0]
    for view in views[1:]:
        if len(view.digits) != len(first.digits):
            raise DataError(
                f"{view.source} has {len(view.digits):,} rows, but {first.source} has {len(first.digits):,}"
            )
        differing = np.flatnonzero(view.digits != first.digits)
        if differing.size:
            row = int(differing[0])
            raise DataError(
                f"{view.source} has the digit {view.digits[row]} in row {row}, "
                f"but {first.source} has {first.digits[row]}: the views are not of the same digits"
            )


def standardise(values: NDArray[np.float64], train: NDArray[np.int64]) -> Features:
    """Values `[N, D]` minus the training rows' mean, divided by their standard deviation; 0 for a constant feature."""
    mean, deviation = values[train].mean(0), values[train].std(0)
    scaled: Features = ((values - mean) / np.where(deviation > 0, deviation, np.inf)).astype(np.float32)
    return scaled


def _lines(content: bytes, name: str) -> list[str]:
    try:
        return content.decode("ascii").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is not plain text") from error


def _values(fields: Sequence[str], width: int, name: str, line: int) -> list[float]:
    if len(fields) != width:
        raise DataError(f"{name}, line {line}: has {len(fields)} values, not the {width} of this view")
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise DataError(f"{name}, line {line}: holds a value that is not a number ({error})") from error
    if not all(map(math.isfinite, values)):
        raise DataError(f"{name}, line {line}: holds a value that is not finite")
    return values


def _make(root: Path, _options: Mapping[str, str]) -> Path:
    return build(root / "shards", root / "raw")


CARDS = (DataSetCard(NAME, "2,000 handwritten digits in six views", _make),)
