"""Locations of the RGB-D data sets: the workspace, or a shared folder."""

from pathlib import Path

from pipeline.datasets import washington
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.paths import shared_data

REAL, SAMPLE = "rgbd", "rgbd-sample"
DATASETS = (REAL, SAMPLE)
ARCHIVE = "washington-rgbd"  # the manifest of the real data's archive


def raw_folder(dataset: str, root: Path) -> Path:
    """The folder that holds the category folders of a data set.

    `rgbd` is looked for in `raw/rgbd-dataset` of the workspace, unpacked in `raw/washington-rgbd`, then in
    `$MMSSL_DATA/rgbd` and `$MMSSL_DATA/washington-rgbd`; `rgbd-sample` in `raw/rgbd-sample`.

    Raises:
        UsageError: no such data set.
        DataError: it is in none of these places, which the message names.
    """
    if dataset not in DATASETS:
        raise UsageError(f"there is no RGB-D data set '{dataset}'", f"data sets: {', '.join(DATASETS)}")
    raw = root / "raw"
    if dataset == SAMPLE:
        places = [raw / SAMPLE]
        hint = "`mmssl data sample` renders it"
    else:
        shared = shared_data()
        shared_folders = [shared / name for name in (REAL, ARCHIVE)] if shared else []
        places = [
            raw / "rgbd-dataset",
            raw / "rgbd-dataset_eval",
            raw / ARCHIVE / "unpacked",
            raw / ARCHIVE,
            *shared_folders,
        ]
        hint = washington.FETCH_HINT
    for place in places:
        try:
            return washington.find_dataset(place)
        except DataError:
            continue
    raise DataError(f"there is no data set {dataset}: looked in {', '.join(map(str, places))}", hint)
