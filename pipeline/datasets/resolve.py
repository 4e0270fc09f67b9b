"""What a data set's name on the command line stands for: the shards, built first where that needs no question."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets import digits
from pipeline.runtime.errors import DataError, UsageError

_DIGITS = re.compile(
    r"(?P<name>[hn]m-(?:mnist|digits))(?:-r(?P<rotation>[\d.]+)-n(?P<noise>[\d.]+))?(?:-s(?P<seed>\d+))?"
)
BUNDLED = "hm-digits"


def shard_paths(data: str, splits: Sequence[int], root: Path) -> list[Path]:
    """The shards of a data set, one a split.

    Args:
        data: a name (`hm-mnist`, `nm-mnist-r60-n0.3`, `rgbd`, `rgbd-sample`, a name given to `mmssl extract`, ...), or
            a file; `{split}` in a file's name stands for the split's number.
        splits: numbers, empty where the data has no splits.
        root: the workspace.

    Raises:
        UsageError: no such data set, or splits where there are none.
        DataError: a file is missing, or cannot be built.
    """
    if data.endswith((".h5", ".hdf5")) or "/" in data:
        return _files(data, splits)
    if _has_splits(data, root):
        return _splits(data, splits, root)
    match = _DIGITS.fullmatch(data)
    if match is None or (data.startswith("hm-") and (match["rotation"] or match["seed"])):
        raise UsageError(
            f"there is no data set '{data}'",
            f"data sets: {', '.join(digits.NAMES)}, nm-mnist-r60-n0.3 and the like, rgbd, rgbd-sample, "
            "or a shard's file: --data FILE.h5",
        )
    if splits:
        raise UsageError(f"{data} has no splits", "leave --split out")
    options = {key: float(match[key]) for key in ("rotation", "noise") if match[key]}
    return [digits.build(match["name"], root / "shards", root / "raw", seed=int(match["seed"] or 0), **options)]


def _has_splits(data: str, root: Path) -> bool:
    """Whether it is a name of `mmssl extract`'s: an RGB-D data set, or one that was given with --name."""
    known = re.fullmatch(r"rgbd(-sample)?(-normals|-raw)?(-\d+)?", data) is not None
    return known or any((root / "shards").glob(f"{glob.escape(data)}-split-*.h5"))


def _splits(data: str, splits: Sequence[int], root: Path) -> list[Path]:
    if not splits:
        raise UsageError(f"{data} has splits", "say which: --split 0..9")
    paths = [root / "shards" / f"{data}-split-{split}.h5" for split in splits]
    missing = [split for split, path in zip(splits, paths, strict=True) if not path.exists()]
    if missing:
        source = " --data rgbd-sample" if data.startswith("rgbd-sample") else ""
        raise DataError(
            f"there is no shard {paths[splits.index(missing[0])]}",
            f"`mmssl preprocess rgbd{source}`, then `mmssl extract{source} --split {','.join(map(str, missing))}`, "
            "make it (docs/rgbd.md)",
        )
    return paths


def _files(data: str, splits: Sequence[int]) -> list[Path]:
    if splits and "{split}" not in data:
        raise UsageError(f"{data} is one file", "write {split} in its name where the split's number stands")
    if "{split}" in data and not splits:
        raise UsageError(f"{data} needs splits", "say which: --split 0..9")
    paths = [Path(data.replace("{split}", str(split))) for split in splits] or [Path(data)]
    for path in paths:
        if not path.exists():
            raise DataError(f"there is no shard {path}", "write one yourself: docs/shards.md")
    return paths
