"""`metadata.csv`: pictures named in columns `rgb_file_name` and `depth_file_name`, with label, group and split.

The convention is that of Hugging Face's image folders. Names are relative to the file's folder, with slashes of either
direction, and may not lead out of it. An empty cell is a picture that the row lacks, an empty label an unlabelled row.
"""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.datasets.pictures import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from pipeline.runtime.errors import DataError
from pipeline.sources.csv_tables import Table
from pipeline.sources.folders import camera_of, without_camera
from pipeline.sources.rows import CAMERAS, Camera, Source, checked_ids, clean, groups_of, labels_of, parts_of

NAME = "metadata.csv"
_FILE = re.compile(r"(?:(.+?)[_ ])?file_?name", re.IGNORECASE)


def picture_columns(columns: Sequence[str]) -> dict[str, str]:
    """Column -> what comes before `_file_name` in its name; `file_name` alone is `rgb`."""
    return {name: match[1] or "rgb" for name in columns if (match := _FILE.fullmatch(name))}


def read_metadata(table: Table, group: str | None = None) -> Source:
    """The rows of a `metadata.csv`, without opening any picture.

    A row whose picture is not there is left out and listed, and so is a row without any picture.

    Args:
        group: a column, or `folder` for the folder that holds the pictures; None for the column `group`, if any.

    Raises:
        DataError: a column names a modality other than colour and depth, a path leads out of the folder, ids are not
            unique, or not one row has its pictures.
    """
    where, base = str(table.path), table.path.parent
    columns = _cameras(table)
    names = [
        {camera: table.columns[column][row] for camera, column in columns.items() if table.columns[column][row]}
        for row in range(len(table.lines))
    ]
    cells = table.cells(list(columns.values()))
    files = [
        {camera: _file(table, row, camera, name) for camera, name in given.items()} for row, given in enumerate(names)
    ]
    rows, left_out = [], {}
    for row, given in enumerate(files):
        missing = next((names[row][camera] for camera, file in given.items() if not file.is_file()), None)
        if not given:
            left_out[f"line {table.lines[row]}"] = "names no picture at all"
        elif missing is not None:
            left_out[f"line {table.lines[row]}"] = (
                f"{missing} is a folder, not a file" if (base / missing).is_dir() else f"there is no file {missing}"
            )
        else:
            rows.append(row)
    if not rows:
        raise DataError(
            f"{where}: not one of its rows has its pictures: {next(iter(left_out))} {next(iter(left_out.values()))}",
            f"paths are relative to {base}",
        )
    chosen = cells.chosen(rows)
    places = [
        without_camera(PurePosixPath(next(iter(files[row].values())).relative_to(base).as_posix()))[0] for row in rows
    ]
    ids = checked_ids(where, [clean(text) for text in chosen.ids] if chosen.ids else [clean(str(p)) for p in places])
    folders = [clean(str(place.parent)).removeprefix(".") for place in places]
    return Source(
        path=table.path,
        base=base,
        ids=ids,
        pictures=_pictures([files[row] for row in rows]),
        labels=(None,) * len(rows) if chosen.labels is None else labels_of(chosen.labels),
        labels_from=None if chosen.labels is None else "the column label",
        groups=groups_of(where, chosen, group, folders),
        test=parts_of(where, chosen, ids),
        left_out=left_out,
        notes=(f"columns that are not used: {', '.join(cells.others)}",) if set(cells.others) - {group} else (),
    )


def _cameras(table: Table) -> dict[Camera, str]:
    """By camera, the column that names its pictures."""
    columns: dict[Camera, str] = {}
    for column, prefix in picture_columns(list(table.columns)).items():
        camera = camera_of(clean(prefix))
        if camera is None:
            raise DataError(
                f"{table.path}: the column {column} names pictures of {prefix!r}, but pictures are colour or depth",
                "encode other pictures first, and import the vectors",
            )
        if camera in columns:
            raise DataError(f"{table.path}: the columns {columns[camera]} and {column} both name the {camera} picture")
        columns[camera] = column
    return {camera: columns[camera] for camera in CAMERAS if camera in columns}


def _pictures(rows: Sequence[Mapping[Camera, Path]]) -> dict[Camera, tuple[Path | None, ...]]:
    return {camera: tuple(row.get(camera) for row in rows) for camera in CAMERAS if any(camera in row for row in rows)}


def _file(table: Table, row: int, camera: Camera, name: str) -> Path:
    """The file that a cell names, inside the folder of the table."""
    base, hint = table.path.parent, f"name files relative to {table.path.parent}, and keep them in it"
    text = name.replace("\\", "/")
    if PureWindowsPath(name).drive or text.startswith("~"):
        raise DataError(f"{table.place(row)}: {name!r} is a path of another computer or person", hint)
    relative = os.path.normpath(text)  # by name alone: a link inside the folder may lead elsewhere
    if os.path.isabs(relative):
        relative = os.path.relpath(relative, base.absolute())
    if relative.split("/")[0] == "..":
        raise DataError(f"{table.place(row)}: {name!r} lies outside the folder of {table.path.name}", hint)
    path = base / relative
    suffixes = DEPTH_SUFFIXES if camera == "depth" else COLOUR_SUFFIXES
    if path.suffix.lower() not in suffixes:
        raise DataError(
            f"{table.place(row)}: {name!r} is no picture that can be read",
            f"{camera} pictures end in {', '.join(sorted(suffixes))}",
        )
    if not path.exists():  # another system may have written its umlauts in two pieces, or in one
        for form in ("NFC", "NFD"):
            other = Path(unicodedata.normalize(form, str(path)))
            if other.exists():
                return other
    return path
