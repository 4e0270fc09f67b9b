"""Reads whatever a person names as their data: finds out its form, and hands it to the reader of that form."""

from pathlib import Path

from pipeline.datasets.washington_index import find_dataset, is_washington
from pipeline.runtime.errors import DataError, UsageError
from pipeline.sources.csv_tables import read_table
from pipeline.sources.folders import read_folder
from pipeline.sources.metadata import NAME, picture_columns, read_metadata
from pipeline.sources.rows import Source
from pipeline.sources.vectors import read_arrays, read_vector_table, vector_columns

FORMS = "a folder of pictures, a metadata.csv, or vectors as .npz, .npy or .csv (docs/guide/own-data.md)"


def read_source(path: Path, group: str | None = None) -> Source:
    """Reads a person's data without decoding any picture.

    Args:
        path: a folder of pictures, or one with a `metadata.csv` or `.npy` files in it; a `.csv`, `.npz` or `.npy` file.
        group: a column that names what a split must not cut through, or `folder` for the folder of the pictures. None
            for the column `group`, if there is one.

    Raises:
        UsageError: there is nothing at the path.
        DataError: it is of no form that is known, or not valid.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder", f"a source is {FORMS}")
    if path.is_dir():
        if (path / NAME).is_file():
            return _read_csv(path / NAME, group)
        if _is_washington(path):
            raise DataError(
                f"{path}: is in the layout of the Washington RGB-D data, which has a command of its own",
                "put it at workspace/raw/rgbd-dataset and run `mmssl preprocess rgbd`, for recordings of your own "
                "`mmssl preprocess rgbd --frames all --trials objects` (docs/guide/rgbd.md)",
            )
        return read_arrays(path, group) if any(path.glob("[!.]*.npy")) else read_folder(path, group)
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _read_csv(path, group)
        case ".npz" | ".npy":
            return read_arrays(path, group)
        case ".h5" | ".hdf5":
            raise DataError(f"{path}: is an HDF5 file", f"a shard needs no import: `mmssl train MODEL --data {path}`")
    raise DataError(
        f"{path}: a {path.suffix or 'file without suffix'} is of no form that can be read", f"a source is {FORMS}"
    )


def _read_csv(path: Path, group: str | None) -> Source:
    table = read_table(path)
    names = list(table.columns)
    pictures, vectors = picture_columns(names), vector_columns(names)
    if pictures and not vectors:
        return read_metadata(table, group)
    if vectors and not pictures:
        return read_vector_table(table, group)
    problem = "both pictures and vectors" if pictures else "neither pictures nor vectors"
    raise DataError(
        f"{path}: its columns name {problem}",
        "pictures need a column such as rgb_file_name, vectors the columns x.0, x.1, ... of each modality",
    )


def _is_washington(path: Path) -> bool:
    try:
        folder = find_dataset(path)
    except DataError:
        return False
    return is_washington(folder)
