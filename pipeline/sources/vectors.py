"""Vectors: an `.npz` file, a folder of `.npy` files, one `.npy` file, or a CSV file with columns `x.0`, `x.1`, ...

An array `[N, D]` is a modality, by its key or file name. An array `[N]` is a column: `label` (or `y`), `group`, `id`
and `split` mean what their names say. A row of NaN, or of empty cells, is a row that lacks the modality.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.arrays import read_npy, read_npz
from pipeline.runtime.errors import DataError
from pipeline.shards.schema import SCHEMA, Features, Header, Modality, header_fault
from pipeline.sources.csv_tables import RESERVED, Table
from pipeline.sources.rows import Cells, Source, checked_ids, clean, groups_of, labels_of, parts_of

_COLUMN = re.compile(r"(.+)\.(\d+)")
_NUMBERS, _TEXTS = "biuf", "US"
_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
_NO_NUMBER = frozenset(
    {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"}
)  # as R, pandas and spreadsheets write it
_SHAPES = "modalities are numbers of the shape [rows, width]; labels and the like have the shape [rows]"


def vector_columns(columns: Sequence[str]) -> dict[str, list[str]]:
    """Modality -> its columns `<modality>.<number>`, in the order of their numbers."""
    found: dict[str, list[tuple[int, str]]] = {}
    for column in columns:
        if match := _COLUMN.fullmatch(column):
            found.setdefault(clean(match[1]), []).append((int(match[2]), column))
    return {name: [column for _, column in sorted(numbered)] for name, numbered in found.items()}


def read_arrays(path: Path, group: str | None = None) -> Source:
    """Reads an `.npz` file, a folder of `.npy` files, or one such file; nothing is unpickled.

    Raises:
        DataError: it is damaged, or its arrays do not fit together.
    """
    if path.suffix.lower() == ".npz":
        return from_arrays(path, read_npz(path), group)
    files = sorted(file for file in path.glob("*.npy") if not file.name.startswith(".")) if path.is_dir() else [path]
    return from_arrays(path, {clean(file.stem): read_npy(file) for file in files}, group)


def from_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], group: str | None = None) -> Source:
    """The rows of arrays by name: `[N, D]` is a modality, `[N]` a column.

    Raises:
        DataError: an array has another shape, or the arrays differ in their rows.
    """
    modalities: dict[str, NDArray[Any]] = {}
    columns: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in _NUMBERS + _TEXTS:
            raise DataError(f"{path}: {name} holds {array.dtype}, which is neither numbers nor texts", _SHAPES)
        reserved = name.casefold() in RESERVED
        if array.ndim == 2 and array.shape[1] == 1 and reserved:
            array = array[:, 0]
        if array.ndim == 1:
            columns[name.casefold() if reserved else name] = _texts(path, name, array)
        elif array.ndim == 2 and not reserved and array.dtype.kind in _NUMBERS:
            modalities[name] = array
        else:
            role = "; an array of this name has one value per row" if reserved else ""
            raise DataError(
                f"{path}: {name} holds {array.dtype} of the shape {array.shape}{role}",
                f"{_SHAPES}; a modality of this name can come from a CSV file ({name}.0, {name}.1, ...)"
                if reserved
                else _SHAPES,
            )
    if not modalities:
        raise DataError(f"{path}: there is no array of vectors in it", _SHAPES)
    rows = {name: len(array) for name, array in modalities.items()}
    rows |= {name: len(texts) for name, texts in columns.items()}
    first = next(iter(rows))
    for name, count in rows.items():
        if count != rows[first]:
            raise DataError(f"{path}: {name} has {count} rows, but {first} has {rows[first]}")
    labels = columns.get("label", columns.get("y"))
    others = {
        name: texts for name, texts in columns.items() if name not in RESERVED or (name == "y" and "label" in columns)
    }
    cells = Cells(columns.get("id"), labels, columns.get("group"), columns.get("split"), others)
    places = [f"row {row}" for row in range(rows[first])]
    return _source(path, modalities, cells, group, places)


def read_vector_table(table: Table, group: str | None = None) -> Source:
    """The rows of a CSV file with columns `x.0 .. x.N` per modality.

    Raises:
        DataError: a column is missing, a cell is not a number, or a row has some values of a modality and not others.
    """
    columns = vector_columns(list(table.columns))
    modalities, commas = {}, list[str]()
    for name, numbered in columns.items():
        for number, column in enumerate(numbered):
            if int(column.rpartition(".")[2]) != number:
                raise DataError(
                    f"{table.path}: the column {name}.{number} is missing, though there is {column}",
                    f"the columns of {name} are numbered from {name}.0 on, without gaps",
                )
        modalities[name] = np.stack([_numbers(table, column) for column in numbered], axis=1)
        if any(_decimal_comma(table, table.columns[column]) for column in numbered):
            commas.append(name)
    used = [column for numbered in columns.values() for column in numbered]
    places = [f"line {line}" for line in table.lines]
    source = _source(table.path, modalities, table.cells(used), group, places)
    if not commas:
        return source
    note = f"commas are read as decimal points in {', '.join(commas)}: 1,5 is one and a half"
    return replace(source, notes=(*source.notes, note))


def _numbers(table: Table, column: str) -> NDArray[np.float64]:
    texts = table.columns[column]
    comma = _decimal_comma(table, texts)
    values = np.empty(len(texts))
    for row, text in enumerate(texts):
        try:
            values[row] = (
                np.nan if text.casefold() in _NO_NUMBER else _number(text.replace(",", ".") if comma else text)
            )
        except ValueError:
            raise DataError(f"{table.place(row)}: {column} is {text!r}, not a number", _number_hint(text)) from None
    return values


def _number(text: str) -> float:
    if "_" in text:  # Python's own spelling, and elsewhere no number
        raise ValueError(text)
    return float(text)


def _decimal_comma(table: Table, texts: Sequence[str]) -> bool:
    """Whether a column has decimal commas: only where a comma separates no cells, and no point is in it."""
    return table.delimiter != "," and any(map(_COMMA.fullmatch, texts)) and not any("." in text for text in texts)


def _number_hint(text: str) -> str:
    if "," in text:
        return "write numbers with a decimal point and without marks between thousands, or separate cells by semicolons"
    return "leave the cell empty where there is no value"


def _source(
    path: Path, modalities: Mapping[str, NDArray[Any]], cells: Cells, group: str | None, places: Sequence[str]
) -> Source:
    fault = header_fault(
        Header(
            "x", None, ("a", "b"), tuple(Modality(m, v.shape[1], "gaussian") for m, v in modalities.items()), None, {}
        ),
        SCHEMA,
    )
    if fault:
        raise DataError(f"{path}: {fault}", "rename the modality")
    vectors = {name: _vectors(f"{path}: {name}", values, places) for name, values in modalities.items()}
    present = np.logical_or.reduce([~np.isnan(values).all(axis=1) for values in vectors.values()])
    rows = np.flatnonzero(present).tolist()
    if not rows:
        raise DataError(f"{path}: no row has any value of any modality", "a row needs one modality at least")
    left_out = {places[row]: "has no modality at all" for row in np.flatnonzero(~present).tolist()}
    if left_out:
        vectors = {name: values[present] for name, values in vectors.items()}
    chosen = cells.chosen(rows)
    ids = [clean(text) for text in chosen.ids] if chosen.ids else [f"{row:0{_digits(places)}d}" for row in rows]
    unused = [name for name in cells.others if name != group]
    return Source(
        path=path,
        base=path if path.is_dir() else path.parent,
        ids=checked_ids(str(path), ids),
        vectors=vectors,
        labels=(None,) * len(rows) if chosen.labels is None else labels_of(chosen.labels),
        labels_from=None if chosen.labels is None else "label",
        groups=groups_of(str(path), chosen, group, None),
        test=parts_of(str(path), chosen, ids),
        left_out=left_out,
        notes=(f"columns that are not used: {', '.join(unused)}",) if unused else (),
    )


def _digits(places: Sequence[str]) -> int:
    return max(4, len(str(len(places) - 1)))


def _vectors(where: str, values: NDArray[Any], places: Sequence[str]) -> Features:
    """As float32; every row is finite throughout, or NaN throughout."""
    with np.errstate(over="ignore"):
        floats = np.array(values, np.float32)
    finite = np.isfinite(floats)
    odd = np.flatnonzero(~finite.all(axis=1) & ~np.isnan(floats).all(axis=1))
    beyond = np.flatnonzero((np.isinf(floats) & (np.abs(values) < np.inf)).any(axis=1))
    if beyond.size:
        raise DataError(
            f"{where} has a number in {places[int(beyond[0])]} that is beyond float32, {np.finfo(np.float32).max:.2g}",
            "scale the values",
        )
    if odd.size:
        row = int(odd[0])
        raise DataError(
            f"{where} has {int(finite[row].sum())} numbers of {floats.shape[1]} in {places[row]}",
            "a row has all values of a modality, or none of them (empty or NaN), and never infinite ones",
        )
    return floats


def _texts(path: Path, name: str, array: NDArray[Any]) -> list[str]:
    if array.dtype.kind == "S":
        try:
            return [text.decode() for text in array.tolist()]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: {name} holds the bytes {error.object!r}, which are no UTF-8 text",
                "write texts as str, not as bytes",
            ) from None
    return [str(value) for value in array.tolist()]
