"""Pictures in folders: `ANY/rgb/0001.png` and `ANY/depth/0001.png` are one row, and its label is the folder ANY.

A folder's name says whose pictures it holds (`rgb`, `color`, `image`, `depth`, `aligned_depth_to_color`, ...), wherever
it stands in the path; the rest of the path, without the suffix, is the row's id. The label is the last folder of the
rest. A file that is on one side only is a row that lacks the other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.datasets.pictures import COLOUR_SUFFIXES, DEPTH_SUFFIXES
from pipeline.datasets.walking import walk
from pipeline.runtime.errors import DataError
from pipeline.sources.rows import CAMERAS, Camera, Cells, Source, checked_ids, clean, groups_of, label_of

_COLOUR = re.compile(r"(rgb|colou?r)([ _-]?(images?|raw))?|images?|imgs?")
_DEPTH = re.compile(r"(aligned[ _-])?depths?([ _-]?(images?|raw|registered|aligned|to[ _-](colou?r|rgb)))*")
_NOT_READ = frozenset(  # pictures, but of formats that lose values or need other programs
    [".avif", ".cr2", ".dng", ".exr", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".pgm", ".ppm", ".raw", ".svg"]
)
_PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_NAMED = 3  # examples in a message
_FEW = 0.1  # complete rows for each picture that is alone: with fewer, names do not match
_LAYOUT = "expected are ANY/rgb/0001.png and ANY/depth/0001.png, or a metadata.csv, or vectors (docs/guide/own-data.md)"


@dataclass
class _Files:
    """What lies below a folder: by row's id, the picture of each camera; and what does not fit."""

    rows: dict[str, dict[Camera, Path]] = field(default_factory=dict)
    folders: dict[str, PurePosixPath] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)


def camera_of(name: str) -> Camera | None:
    """The camera that a folder's or a column's name speaks of, in any spelling; None if it speaks of none."""
    name = name.casefold()
    return "rgb" if _COLOUR.fullmatch(name) else "depth" if _DEPTH.fullmatch(name) else None


def without_camera(relative: PurePosixPath) -> tuple[PurePosixPath, Camera | None]:
    """A file's path without its camera's folder (the deepest one) and without its suffix, and the camera."""
    parts = list(relative.parent.parts)
    for k in reversed(range(len(parts))):
        if camera := camera_of(parts[k]):
            return PurePosixPath(*parts[:k], *parts[k + 1 :], relative.stem), camera
    return relative.parent / relative.stem, None


def read_folder(path: Path, group: str | None = None) -> Source:
    """Lists the pictures below a folder, without opening any.

    Args:
        group: `folder` for the folder that holds the pictures, the camera's folder aside; None for no groups.

    Raises:
        DataError: there are none, two files are the same picture of the same row, or a folder cannot be listed.
    """
    files = _list(path)
    if not files.rows:
        if files.stray:
            raise DataError(
                f"{path}: holds {len(files.stray)} pictures, such as {files.stray[0]}, "
                "but none in a folder that names its camera",
                _LAYOUT,
            )
        broken = next((f": {name} {why}" for name, why in files.broken.items()), "")
        raise DataError(f"{path}: there are no pictures in it{broken}", _LAYOUT)
    ids = sorted(name for name in files.rows if name not in files.broken)
    if not ids:
        raise DataError(f"{path}: none of its pictures can be read, such as {next(iter(files.broken.values()))}")
    folders = [clean(str(files.folders[name])).removeprefix(".") for name in ids]
    notes = []
    if files.stray:
        shown = ", ".join(files.stray[:_NAMED])
        notes.append(
            f"{len(files.stray)} pictures lie in no folder that names their camera, and are not used: {shown}"
            f"{', ...' if len(files.stray) > _NAMED else ''}"
        )
    notes += _parts(ids)
    notes += _unpaired([files.rows[name] for name in ids])
    return Source(
        path=path,
        base=path,
        ids=checked_ids(str(path), ids),
        pictures={
            camera: tuple(files.rows[name].get(camera) for name in ids)
            for camera in CAMERAS
            if any(camera in files.rows[name] for name in ids)
        },
        labels=tuple(label_of(folder.rpartition("/")[2]) for folder in folders),
        labels_from="the folder above the pictures",
        groups=groups_of(str(path), Cells(), group, folders),
        left_out=files.broken,
        notes=tuple(notes),
    )


def _parts(ids: Sequence[str]) -> list[str]:
    """Says that folders named like parts divide nothing, if there are such."""
    tops = sorted({name.split("/")[0] for name in ids if name.count("/") > 1})
    if len(tops) < 2 or not {top.casefold() for top in tops} <= _PARTS:
        return []
    return [
        f"the folders {', '.join(tops)} are not taken as parts, so that rows of each may be trained on and tested on; "
        "a column split in a metadata.csv divides them"
    ]


def _unpaired(rows: Sequence[Mapping[Camera, Path]]) -> list[str]:
    """Says so if there are pictures of both cameras, and hardly two of a row: their names most likely differ."""
    alone = {camera: [row[camera] for row in rows if set(row) == {camera}] for camera in CAMERAS}
    both = sum(len(row) == len(CAMERAS) for row in rows)
    if not all(alone.values()) or both >= _FEW * min(map(len, alone.values())):
        return []
    colour, depth = (files[0].name for files in alone.values())
    return [
        f"{both} of {len(rows)} rows have both colour and depth: the two pictures of a row have one name, but for the "
        f"suffix, in two folders, and here are {colour} and {depth}; rename them, or pair them in a metadata.csv"
    ]


def _list(path: Path) -> _Files:
    files = _Files()
    for entry in walk(path):
        relative, file = PurePosixPath(entry.name), path / entry.name
        row, camera = without_camera(relative)
        suffixes = DEPTH_SUFFIXES if camera == "depth" else COLOUR_SUFFIXES
        if camera is not None and relative.suffix.lower() in _NOT_READ:
            files.broken[clean(str(row))] = f"{relative} is of a format that is not read"
            files.rows.setdefault(clean(str(row)), {})
        if relative.suffix.lower() not in suffixes:
            if entry.problem is not None and not relative.suffix:  # a folder, or a link to one
                files.broken[entry.name] = entry.problem
            continue
        if camera is None:
            files.stray.append(str(relative))
            continue
        name = clean(str(row))
        if entry.problem is not None:
            files.broken[name] = f"{relative} {entry.problem}"
        other = files.rows.setdefault(name, {}).setdefault(camera, file)
        files.folders[name] = row.parent
        if other != file and entry.problem is None:
            raise DataError(
                f"{path}: {other.relative_to(path).as_posix()} and {relative} are both the "
                f"{'colour' if camera == 'rgb' else camera} picture of {name}",
                "keep one of them, or say in a metadata.csv which belongs to which row",
            )
    return files
