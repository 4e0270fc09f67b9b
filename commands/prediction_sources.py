"""What `mmssl predict` takes rows from: a shard, or whatever `mmssl data import` reads."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from commands import progress
from commands.tables import LEFT_OUT
from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Features, Scaling
from pipeline.shards.shard import Part, Shard
from pipeline.sources.reading import read_source
from pipeline.sources.rows import Source

if TYPE_CHECKING:
    from trainer.inference.inputs import Encode

BLOCK_ROWS = 10_000  # of a shard in memory at a time
BLOCK_PICTURES = 64  # rows of pictures that are encoded and answered together
_log = logging.getLogger("mmssl")


@dataclass(frozen=True)
class Rows:
    """Some rows to predict.

    Attributes:
        ids: `[N]`.
        x: by modality, `[N, D]`; a row of NaN lacks the modality.
        present: by modality, `[N]`, or None if NaN alone says what is missing.
        known: the label that the source gives each row, "" where it gives none, `[N]`; None if it gives none at all.
        scaling: how the features were scaled; None for values that are not scaled yet.
        part: "train" or "test", for the rows of a shard.
    """

    ids: Sequence[str]
    x: Mapping[str, Features]
    present: Mapping[str, NDArray[np.bool_]] | None = None
    known: Sequence[str] | None = None
    scaling: Mapping[str, Scaling] | None = None
    part: str = ""


@dataclass(frozen=True)
class Cameras:
    """What a model makes of pictures: camera -> its modality, and what encodes the pictures of a modality."""

    modalities: Mapping[str, str] = field(default_factory=dict)
    encoder_of: Callable[[str], "Encode"] | None = None


def read_rows(path: Path, modalities: Sequence[str], cameras: Cameras, left_out: dict[str, str]) -> Iterator[Rows]:
    """The rows of a source, block by block.

    Args:
        modalities: those of the model. Others in a shard, and other cameras, are not read; other vectors are an error
            later.
        left_out: is filled with what could not be used -> why.

    Raises:
        UsageError: there is no source.
        DataError: it is damaged, or nothing that can be predicted.
    """
    if path.suffix.lower() in (".h5", ".hdf5") and path.exists():
        yield from _shard(path, modalities)
        return
    source = read_source(path)
    left_out |= source.left_out
    for note in source.notes:
        _log.warning("%s: %s", path, note)
    if source.pictures:
        yield from _pictures(source, cameras, left_out)
    else:
        yield Rows(source.ids, source.vectors, known=_known(source))


def say_left_out(left_out: Mapping[str, str]) -> None:
    """Lists the rows that have no answer."""
    for what, why in list(left_out.items())[:LEFT_OUT]:
        _log.warning("left out: %s: %s", what, why)
    if len(left_out) > LEFT_OUT:
        _log.warning("left out: %d more", len(left_out) - LEFT_OUT)


def _unseen(done: int, total: int) -> None:
    """Progress of a few rows is not shown."""


def _known(source: Source, rows: Sequence[int] | None = None) -> list[str] | None:
    if source.labels_from is None or not any(source.labels):
        return None
    return [source.labels[row] or "" for row in (range(len(source.ids)) if rows is None else rows)]


def _shard(path: Path, modalities: Sequence[str]) -> Iterator[Rows]:
    shard = Shard.open(path)
    known = [modality.name for modality in shard.modalities if modality.name in modalities]
    if not known:
        others = ", ".join(modality.name for modality in shard.modalities)
        raise DataError(f"{path} has none of the model's modalities ({', '.join(modalities)}), only {others}")
    for part in (shard.train, shard.test):
        for start in range(0, part.rows, BLOCK_ROWS):
            yield _part_rows(shard, part, known, slice(start, min(start + BLOCK_ROWS, part.rows)))


def _part_rows(shard: Shard, part: Part, known: Sequence[str], rows: slice) -> Rows:
    present = {name: part.has(name)[rows] for name in known}
    some = np.logical_or.reduce(list(present.values()))
    if not some.all():
        row = part.ids[rows][np.flatnonzero(~some)[0]]
        raise DataError(f"{shard.path}: the row {str(row)!r} has none of the model's modalities ({', '.join(known)})")
    return Rows(
        ids=part.ids[rows].tolist(),
        x={name: part.features(name, rows) for name in known},
        present=present,
        known=[shard.classes[label] if label >= 0 else "" for label in part.labels[rows]],
        scaling=shard.scaling,
        part=part.name,
    )


def _pictures(source: Source, cameras: Cameras, left_out: dict[str, str]) -> Iterator[Rows]:
    """Rows of pictures as their features; a row with a picture that cannot be read is left out."""
    files = {cameras.modalities[name]: paths for name, paths in source.pictures.items() if name in cameras.modalities}
    others = [str(name) for name in source.pictures if name not in cameras.modalities]
    if not files or cameras.encoder_of is None:
        raise DataError(
            f"{source.path}: holds pictures of {' and '.join(others)}, of which the model has no modality",
            "the model takes features: give it a shard, or vectors as .npz, .npy or .csv",
        )
    for camera in others:
        _log.warning("%s: the model does not take %s, whose pictures are not read", source.path, camera)
    encoders = {name: cameras.encoder_of(name) for name in files}
    count, answered, first = len(source.ids), 0, ""
    several = count > BLOCK_PICTURES
    with progress.counting("rows") if several else nullcontext(_unseen) as watch:
        for start in range(0, count, BLOCK_PICTURES):
            rows = list(range(start, min(start + BLOCK_PICTURES, count)))
            faults = {
                row: "it has none of the model's modalities"
                for row in rows
                if all(paths[row] is None for paths in files.values())
            }
            x = {}
            for name, paths in files.items():
                x[name], unreadable = _encoded(encoders[name], [paths[row] for row in rows])
                faults |= {rows[k]: reason for k, reason in unreadable.items()}
            left_out |= {source.ids[row]: reason for row, reason in faults.items()}
            first = first or next(iter(faults.values()), "")
            kept = [row for row in rows if row not in faults]
            if kept:
                some = np.array(kept) - start
                answered += len(kept)
                yield Rows(
                    [source.ids[row] for row in kept],
                    {name: values[some] for name, values in x.items() if not np.isnan(values).all()},
                    known=_known(source, kept),
                )
            watch(rows[-1] + 1, count)
    if not answered:
        raise DataError(f"{source.path}: not one of its {count} rows can be predicted: {first}")


def _encoded(encode: "Encode", paths: Sequence[Path | None]) -> tuple[Features, dict[int, str]]:
    """The features of a block's pictures, NaN where a row has none, and by row why its picture cannot be read."""
    there = [row for row, path in enumerate(paths) if path is not None]
    faults: dict[int, str] = {}
    try:
        found = encode([paths[row] for row in there]) if there else np.empty((0, 1), np.float32)
    except DataError:  # one of them, which only one by one can be told
        single = []
        for row in there:
            try:
                single.append(encode([paths[row]]))
            except DataError as error:
                faults[row] = error.message
        there = [row for row in there if row not in faults]
        found = np.concatenate(single) if single else np.empty((0, 1), np.float32)
    x = np.full((len(paths), found.shape[1]), np.nan, np.float32)
    x[there] = found
    return x, faults
