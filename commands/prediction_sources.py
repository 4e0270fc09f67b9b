"""What `mmssl predict` takes rows from: a shard, an `.npz` file, or a CSV file with columns `x.0 .. x.N`."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.arrays import read_npz
from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Features, Scaling
from pipeline.shards.shard import Part, Shard

BLOCK_ROWS = 10_000  # of a shard in memory at a time
LABELS, IDS = ("label", "y"), ("id",)  # names in files that are no modality
OTHERS = (*LABELS, *IDS, "group", "split", "present")
_HINT = "takes a shard (.h5), an .npz file of arrays, or a CSV file with columns x.0, x.1, ... for each modality"


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


def read_rows(source: Path, modalities: Sequence[str]) -> Iterator[Rows]:
    """The rows of a source, block by block.

    Args:
        modalities: those of the model; others in a shard are not read, others in a file are an error later.

    Raises:
        DataError: the source is missing, damaged, or nothing that can be predicted.
    """
    if not source.exists():
        raise DataError(f"there is no {source}", f"mmssl predict {_HINT}")
    kind = source.suffix.lower()
    if kind in (".h5", ".hdf5"):
        yield from _shard(source, modalities)
    elif kind == ".npz":
        yield _npz(source)
    elif kind == ".csv":
        yield _csv(source)
    else:
        raise DataError(f"{source} is nothing that mmssl predict can read", f"it {_HINT}")


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


def _npz(path: Path) -> Rows:
    arrays = read_npz(path)
    x = {}
    for name, values in arrays.items():
        if name in OTHERS:
            continue
        if values.ndim != 2 or values.dtype.kind not in "biuf":
            raise DataError(f"{path}: '{name}' is {values.dtype} {values.shape}, not numbers [rows, width]")
        with np.errstate(over="ignore"):
            x[name] = values.astype(np.float32)
    rows = {name: len(values) for name, values in arrays.items() if values.ndim and name != "present"}
    if not x or len(set(rows.values())) > 1:
        raise DataError(
            f"{path}: {'its arrays differ in their numbers of rows' if x else 'it holds no modality'}", _HINT
        )
    count = next(iter(rows.values()))
    ids = next((arrays[name].astype(str).tolist() for name in IDS if name in arrays), None)
    known = next((arrays[name].tolist() for name in LABELS if name in arrays), None)
    return Rows(ids or [str(row) for row in range(count)], x, known=None if known is None else _labels(known))


def _labels(values: Sequence[Any]) -> list[str]:
    """Labels as text; -1, an empty text and NaN are none."""
    return ["" if value in (-1, "-1", "", None) or value != value else str(value) for value in values]


def _csv(path: Path) -> Rows:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            lines = [line for line in reader if line]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}", _HINT) from None
    columns = _modality_columns(path, header)
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise DataError(f"{path}: line {number} has {len(line)} cells, but the header has {len(header)}")
    if not lines:
        raise DataError(f"{path} has no rows")
    x = {name: _numbers(path, lines, places) for name, places in columns.items()}
    cells = {name: [line[header.index(name)].strip() for line in lines] for name in (*LABELS, *IDS) if name in header}
    known = next((cells[name] for name in LABELS if name in cells), None)
    ids = cells.get("id") or [str(row) for row in range(len(lines))]
    return Rows(ids, x, known=None if known is None else _labels(known))


def _modality_columns(path: Path, header: Sequence[str]) -> dict[str, list[int]]:
    """The columns of each modality, in the order of their numbers."""
    found: dict[str, dict[int, int]] = {}
    for place, name in enumerate(header):
        modality, dot, number = name.rpartition(".")
        if dot and modality and number.isascii() and number.isdigit() and len(number) < 10:
            if int(number) in found.setdefault(modality, {}):
                raise DataError(f"{path}: the column {name} occurs twice")
            found[modality][int(number)] = place
    if not found:
        raise DataError(f"{path} has no columns of a modality, such as x.0, x.1", _HINT)
    for modality, places in found.items():
        if sorted(places) != list(range(len(places))):
            raise DataError(f"{path}: the columns of {modality} are not {modality}.0 to {modality}.{len(places) - 1}")
    return {modality: [places[number] for number in sorted(places)] for modality, places in found.items()}


def _numbers(path: Path, lines: Sequence[Sequence[str]], places: Sequence[int]) -> Features:
    try:
        values = [[float(line[place] or "nan") for place in places] for line in lines]
    except ValueError as error:
        raise DataError(f"{path}: {error}", "cells of a modality are numbers, or empty where it is missing") from None
    with np.errstate(over="ignore"):
        return np.array(values, np.float64).astype(np.float32)
