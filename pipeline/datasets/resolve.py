"""Finds the shards that a data set's name on the command line refers to, and builds those that need no decisions."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets.locations import REAL, SAMPLE
from pipeline.datasets.names import imported_shard
from pipeline.datasets.registry import cards, data_set_names
from pipeline.datasets.validation import build_validation
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.failures import Failures
from pipeline.runtime.paths import expanded
from pipeline.shards.finding import SUFFIXES
from pipeline.shards.schema import VALIDATION
from pipeline.shards.shard import Shard

BUNDLED = "hm-digits"


def shard_paths(data: str, splits: Sequence[int], root: Path) -> list[Path]:
    """The shards of a data set, one per split.

    Args:
        data: a name (`hm-mnist`, `nm-mnist-r60-n0.3`, `rgbd`, `rgbd-sample`, a name given to `mmssl data import` or to
            `mmssl extract`, ...), or a file; `{split}` in a file's name stands for the split's number. A name that
            ends in `-validation` means the same data with its training part divided, and its test part left out.
        splits: numbers; empty if the data has no splits.
        root: the workspace.

    Raises:
        UsageError: no such data set, splits given for data without any, or none given for data with splits.
        DataError: a file is missing, or cannot be built.
    """
    if data.lower().endswith(SUFFIXES) or "/" in data:
        return _files(data, splits)
    if data.endswith(VALIDATION):
        return [build_validation(path) for path in shard_paths(data.removesuffix(VALIDATION), splits, root)]
    if data in (REAL, SAMPLE) or any((root / "shards").glob(f"{glob.escape(data)}-split-*.h5")):
        return _splits(data, splits, root)
    for card in cards():
        options = card.options(data)
        if options is None:
            continue
        if splits:
            raise UsageError(f"{data} has no splits", "leave --split out")
        return [card.build(root, options)]
    shard = imported_shard(data, root)
    if shard.exists():
        if splits:
            raise UsageError(f"{data} has no splits", "leave --split out")
        return [shard]
    of_pictures = re.compile(rf"{re.escape(data)}(-normals|-raw)?(-\d+)?")  # a folder names what differs from defaults
    folders = [folder.name for folder in (root / "images").glob("*/") if of_pictures.fullmatch(folder.name)]
    if folders:
        alike = "" if data in folders else " with the --size and --depth-encoding of the import"
        raise DataError(
            f"there is no shard {shard} yet, only the pictures of {data}",
            f"`mmssl extract --data {data}`{alike} makes it",
        )
    raise UsageError(
        f"there is no data set '{data}'",
        f"data sets: {', '.join(data_set_names())}, nm-mnist-r60-n0.3 and the like, {REAL}, {SAMPLE}, the --name of "
        f"data that `mmssl data import` or `mmssl extract` made, any of these with {VALIDATION}, or a shard's file: "
        "--data FILE.h5",
    )


def open_shards(data: str, splits: Sequence[int], root: Path, failures: Failures) -> list[Shard]:
    """Opens the shards of a data set (`shard_paths`); of several splits those that can be, the others are collected.

    Raises:
        UsageError: as for `shard_paths`.
        DataError: none can be opened.
    """
    if len(splits) < 2:
        return [Shard.open(path) for path in shard_paths(data, splits, root)]
    shards = []
    for split in splits:
        with failures.of(f"split {split}"):
            shards += [Shard.open(path) for path in shard_paths(data, [split], root)]
    if not shards:
        failures.raise_if_any(len(splits))
    return shards


def _splits(data: str, splits: Sequence[int], root: Path) -> list[Path]:
    if not splits:
        raise UsageError(f"{data} has splits", "choose some: --split 0..9")
    paths = [root / "shards" / f"{data}-split-{split}.h5" for split in splits]
    missing = [split for split, path in zip(splits, paths, strict=True) if not path.exists()]
    if missing:
        source = f" --data {SAMPLE}" if data == SAMPLE else ""
        raise DataError(
            f"there is no shard {paths[splits.index(missing[0])]}",
            f"`mmssl preprocess rgbd{source}`, then `mmssl extract{source} --split {','.join(map(str, missing))}`, "
            "build it (docs/guide/rgbd.md)",
        )
    return paths


def _files(data: str, splits: Sequence[int]) -> list[Path]:
    if splits and "{split}" not in data:
        raise UsageError(f"{data} is one file", "write {split} in its name where the split's number stands")
    if "{split}" in data and not splits:
        raise UsageError(f"{data} needs splits", "choose some: --split 0..9")
    data = str(expanded(data))
    paths = [Path(data.replace("{split}", str(split))) for split in splits] or [Path(data)]
    for path in paths:
        if not path.exists():
            raise DataError(f"there is no shard {path}", "write one yourself: docs/reference/shard.md")
    return paths
