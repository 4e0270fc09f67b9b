"""Locations of the RGB-D data sets: the workspace, or a shared folder."""

import re
from pathlib import Path

from pipeline.datasets import archives, washington, washington_index
from pipeline.datasets.manifests import places
from pipeline.runtime.errors import DataError, UsageError

REAL, SAMPLE = "rgbd", "rgbd-sample"
DATASETS = (REAL, SAMPLE)
ARCHIVE = "washington-rgbd"  # the manifest of the real data's archive


_OF_THE_DATA = re.compile(r"(rgbd-dataset|washington-rgbd).*", re.IGNORECASE)


def archives_at_hand(root: Path) -> list[Path]:
    """Archives of the whole real data set that were placed by hand, in any wrapping, by their names."""
    folders = [root / "raw" / ARCHIVE, root / "raw", *places(root / "raw", REAL, ARCHIVE)]
    return [
        path
        for folder in dict.fromkeys(folders)
        for path in sorted(folder.glob("[!.]*"))
        if archives.NAMES.fullmatch(path.name) and _OF_THE_DATA.fullmatch(path.name) and path.is_file()
    ]


def raw_folder(dataset: str, root: Path) -> Path:
    """The folder that holds the category folders of a data set.

    `rgbd` is looked for in `raw/rgbd-dataset` of the workspace, unpacked in `raw/washington-rgbd`, then in
    `$MMSSL_DATA/rgbd` and `$MMSSL_DATA/washington-rgbd`; `rgbd-sample` in `raw/rgbd-sample`.

    Raises:
        UsageError: no such data set.
        DataError: it is in none of these places, which the message names, or only archives are.
    """
    if dataset not in DATASETS:
        raise UsageError(f"there is no RGB-D data set '{dataset}'", f"data sets: {', '.join(DATASETS)}")
    raw = root / "raw"
    if dataset == SAMPLE:
        looked = [raw / SAMPLE]
        hint = "`mmssl data sample` renders it"
    else:
        shared = places(raw, REAL, ARCHIVE)[2:]
        looked = [raw / "rgbd-dataset", raw / "rgbd-dataset_eval", raw / ARCHIVE / "unpacked", raw / ARCHIVE, *shared]
        hint = washington.FETCH_HINT
    for place in looked:
        try:
            return washington_index.find_dataset(place)
        except DataError:
            continue
    if dataset == REAL and (known := archives_at_hand(root)):
        raise DataError(
            f"the data set {dataset} is not unpacked: {known[0]}", f"`mmssl data fetch {ARCHIVE}` unpacks it"
        )
    for place in looked:
        if (packed := washington_index.packed_in(place)) is not None:
            raise packed
    raise DataError(f"there is no data set {dataset}: looked in {', '.join(map(str, looked))}", hint)
