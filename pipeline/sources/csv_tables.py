"""CSV files as a spreadsheet writes them: read as text, one list per column, with the numbers of their lines."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import DataError
from pipeline.runtime.texts import decoded
from pipeline.sources.rows import Cells, clean

_DELIMITERS = ",;\t"
_LABELS, _GROUP, _ID, _SPLIT = ("label", "y"), "group", "id", "split"
RESERVED = (*_LABELS, _GROUP, _ID, _SPLIT)
_MOST_FIELD = 2**20  # characters in one cell


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file, by their names, and the line on which each row ends."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def place(self, row: int) -> str:
        """Where a row is, for messages."""
        return f"{self.path}, line {self.lines[row]}"

    def cells(self, used: Sequence[str]) -> Cells:
        """What it says of its rows beside the modalities, whose columns are `used`."""
        names = {name.casefold(): name for name in self.columns if name not in used}

        def column(*known: str) -> Sequence[str] | None:
            return next((self.columns[names[name]] for name in known if name in names), None)

        others = {
            name: texts for name, texts in self.columns.items() if name not in used and name.casefold() not in RESERVED
        }
        return Cells(column(_ID), column(*_LABELS), column(_GROUP), column(_SPLIT), others)


def read_table(path: Path) -> Table:
    """Reads a CSV file with a header: UTF-8 or UTF-16 (`pipeline.runtime.texts`); commas, semicolons or tabs.

    Empty lines are left out. Spaces around names and cells do not count.

    Raises:
        DataError: it cannot be read, is not such a file, a column's name is empty or used twice, or a line has more or
            fewer cells than the header.
    """
    try:
        csv.field_size_limit(_MOST_FIELD)
        file = io.StringIO(decoded(path.read_bytes(), path), newline="")  # a cell may hold line ends of its own
        first = file.readline()
        file.seek(0)
        delimiter = max(_DELIMITERS, key=first.count)  # of equal counts the first, a comma
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = [clean(name) for name in next(reader, [])]
        columns, lines = _columns(path, reader, header)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not a CSV file: {error}") from error
    if not lines:
        raise DataError(f"{path}: has no rows below its header")
    return Table(path, dict(zip(header, columns, strict=True)), lines)


def _columns(path: Path, reader: Any, header: Sequence[str]) -> tuple[list[list[str]], list[int]]:
    folded = [name.casefold() for name in header]
    for name in header:
        if not name or folded.count(name.casefold()) > 1:
            raise DataError(
                f"{path}: its header has {f'the column {name!r} twice' if name else 'a column without a name'}",
                "the first line must name every column once",
            )
    columns: list[list[str]] = [[] for _ in header]
    lines = []
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            raise DataError(
                f"{path}, line {reader.line_num}: has {len(fields)} cells, but the header names {len(header)} columns",
                "a cell that contains the separator must stand in quotation marks",
            )
        for column, cell in zip(columns, fields, strict=True):
            column.append(cell.strip())
        lines.append(reader.line_num)
    return columns, lines
