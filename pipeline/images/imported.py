"""The image store of a person's own pictures, with the labels, groups and parts of its frames in the index."""

import hashlib
import logging
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline.datasets.pictures import UNCOMPRESSED, PictureRow
from pipeline.images.building import Headers, Progress, build_store, distinct, stamp_of
from pipeline.images.contact_sheet import draw
from pipeline.images.depth import DepthEncoding
from pipeline.images.store import (
    INDEX,
    MODALITIES,
    Entry,
    ImageModality,
    ImageSettings,
    ImageStore,
    ImportedRows,
    StoreIndex,
    store_folder,
)
from pipeline.runtime.errors import DataError, NewerError, UsageError
from pipeline.runtime.files import remove
from pipeline.sources.parts import Labelling
from pipeline.sources.rows import Source
from pipeline.sources.survey import sample_of

_log = logging.getLogger(__name__)
PREVIEW_FRAMES = 16
_FEWEST = 16  # frames per file on average, below which files follow labels and not groups
_OBJECT_BYTES = 2**25  # of one file's images
_MOST_FRAMES = 256  # of one file
_SLUG = 40  # characters


def import_pictures(
    source: Source,
    labelling: Labelling,
    name: str,
    root: Path,
    settings: ImageSettings,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ImageStore:
    """Makes or completes the image store `images/NAME`.

    Args:
        root: the workspace. With a scheduler, every worker must see the pictures under the same path.
        strict: a picture that cannot be read is an error; otherwise its row is listed and left out.
        progress: called with the number of files done and the total.

    Raises:
        UsageError: the encoding needs what is not known of these pictures.
        DataError: the name belongs to another store, a picture is of the wrong kind, or too few can be read.
        LeasedError: another process is making this store.
        StorageError: the disk is full or refuses.
        Interrupted: SIGTERM or Ctrl-C; finished files are kept.
    """
    check_encoding(settings.depth_encoding)
    folder = store_folder(name, root, settings)
    _check_existing(folder, name, source)
    rows = picture_rows(source)
    objects = {
        key: [rows[row] for row in numbers] for key, numbers in frame_files(source, labelling, settings.size).items()
    }
    _log.info("%s: %d rows in %d files", name, len(rows), len(objects))
    store = build_store(
        folder,
        objects,
        settings,
        lambda headers: _index(source, labelling, name, settings, list(objects), headers),
        stamps={key: _stamp(frames) for key, frames in objects.items()},
        workers=workers,
        scheduler=scheduler,
        strict=strict,
        progress=progress,
    )
    for path in folder.glob("*.h5"):  # of rows that the source no longer has
        if path.stem not in objects:
            remove(path)
    return store


def check_encoding(encoding: DepthEncoding) -> None:
    """Checks that depth of unknown cameras can be encoded so.

    Raises:
        UsageError: it cannot.
    """
    if encoding == "normals":
        raise UsageError(
            "--depth-encoding normals needs the camera's focal length, the unit of its depth and the place of each "
            "picture in the camera's frame, which are not known of imported pictures",
            "use --depth-encoding jet, or raw",
        )


def picture_rows(source: Source) -> list[PictureRow]:
    """The picture files of every row."""
    absent = (None,) * len(source.ids)
    rgb, depth = (source.pictures.get(camera, absent) for camera in ("rgb", "depth"))
    return [PictureRow(name, source.base, *files) for name, *files in zip(source.ids, rgb, depth, strict=True)]


def frame_files(source: Source, labelling: Labelling, size: int) -> dict[str, list[int]]:
    """Which rows share a file of the store: those of a group, or, if groups are small or absent, those of a label.

    A file holds a limited number of rows. Its name is that of the group or label as far as a file's name allows, so
    that a row more changes few files.
    """
    texts = None if labelling.groups is None else labelling.groups.tolist()
    if texts is None or "" in texts or len(texts) < _FEWEST * len(set(texts)):
        texts = [label or "unlabelled" for label in source.labels]
    most = max(1, min(_MOST_FRAMES, _OBJECT_BYTES // (2 * 3 * size * size)))
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    return {
        f"{_slug(text)}-{start // most:04d}": rows[text][start : start + most]
        for text in sorted(rows)
        for start in range(0, len(rows[text]), most)
    }


def _slug(text: str) -> str:
    """A part of a file's name, different for different texts."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:_SLUG].lower()  # lower: some disks ignore case
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _stamp(frames: Sequence[PictureRow]) -> str:
    """Names and sizes of the files; of formats without compression, whose sizes never change, the content too."""
    digest = hashlib.sha256(stamp_of(frames).encode())
    for frame in frames:
        for path in frame.files:
            digest.update(path.suffix.encode())
            if path.suffix.lower() in UNCOMPRESSED:
                with suppress(OSError):  # reading the picture says why
                    digest.update(zlib.crc32(path.read_bytes()).to_bytes(4))
    return digest.hexdigest()


def _identity(source: Source) -> dict[str, str]:
    return {"imported": source.path.name if source.path.name else source.path.resolve().name}


def _check_existing(folder: Path, name: str, source: Source) -> None:
    """Checks that a store of this name, if there is one, was made from the same source: another may have its name."""
    if not (folder / INDEX).exists():
        return
    try:
        store = ImageStore.open(folder)
    except NewerError:
        raise
    except DataError:
        return  # damaged: it is made again
    index = store.index
    strangers = bool(store.ids) and not set(store.ids) & set(source.ids)
    if index.dataset != name or index.source != _identity(source) or strangers:
        origin = index.source.get("imported", index.dataset)
        raise DataError(
            f"{folder}: holds the pictures of {'another ' * strangers}{origin}, not of {source.path}",
            f"choose another --name, or remove {folder} first",
        )


def _index(
    source: Source,
    labelling: Labelling,
    name: str,
    settings: ImageSettings,
    order: Sequence[str],
    headers: Headers,
) -> StoreIndex:
    number = {sample: row for row, sample in enumerate(source.ids)}
    rows = [number[sample] for key in order for sample in headers[key].ids]
    skipped = dict(source.left_out) | {key: why for each in order for key, why in headers[each].skipped.items()}
    labels, test = labelling.labels[rows], labelling.test[rows]
    before, after = (
        np.bincount(label[(label >= 0) & ~part], minlength=len(labelling.classes))
        for label, part in ((labelling.labels, labelling.test), (labels, test))
    )
    lost = [name for name, had, has in zip(labelling.classes, before, after, strict=True) if had and not has]
    if lost:
        raise DataError(
            f"{source.path}: no labelled training picture of the class {lost[0]} can be read: "
            f"{next(iter(skipped.values()))}",
            "copy or export the pictures again",
        )
    return StoreIndex(
        dataset=name,
        source=_identity(source),
        settings=settings,
        versions=distinct(headers[key].versions for key in order),
        trials=(),
        objects={key: Entry(ids=headers[key].ids, digest=headers[key].digest) for key in order},
        skipped=skipped,
        flawed={sample: why for key in order for sample, why in headers[key].flawed.items()},
        rows=ImportedRows(
            classes=labelling.classes,
            labels=tuple(labels.tolist()),
            groups=("",) * len(rows) if labelling.groups is None else tuple(labelling.groups[rows].tolist()),
            test=tuple(test.tolist()),
            lacking=_lacking(source, rows),
        ),
    )


def _lacking(source: Source, rows: Sequence[int]) -> dict[ImageModality, tuple[int, ...]]:
    """By camera, the places in the store of the frames that lack it."""
    absent = (None,) * len(source.ids)
    lacking: dict[ImageModality, tuple[int, ...]] = {}
    for camera in MODALITIES:
        files = source.pictures.get(camera, absent)
        places = tuple(place for place, row in enumerate(rows) if files[row] is None)
        if places:
            lacking[camera] = places
    return lacking


def preview(source: Source, path: Path, encoding: DepthEncoding = "jet") -> None:
    """Draws rows from all over the source, raw and processed, into a PNG file; what cannot be read is left out.

    Raises:
        StorageError: the disk is full or refuses.
    """
    check_encoding(encoding)
    rows = picture_rows(source)
    draw([rows[k] for k in sample_of(len(rows), PREVIEW_FRAMES)], path, encoding, unit="")
