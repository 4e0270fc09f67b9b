"""CSV files as a spreadsheet writes them: read as text, one list per column, with the numbers of their lines."""

import csv
import io
import re
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
_SAID = re.compile(r"\s*\"?sep=(.)\"?[,;\t]*\r?\n", re.IGNORECASE)  # Excel's own first line
_QUOTES = (
    "a cell with the separator or a quotation mark in it stands in quotation marks, of which those inside are doubled"
)


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file, by their names, and the line on which each row ends."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    delimiter: str = ","

    def place(self, row: int) -> str:
        """Where a row is, for messages."""
        return f"{self.path}, line {self.lines[row]}"

    def cells(self, used: Sequence[str]) -> Cells:
        """What it says of its rows beside the modalities, whose columns are `used`."""
        names = {name.casefold(): name for name in self.columns if name not in used}

        def column(*known: str) -> Sequence[str] | None:
            return next((self.columns[names[name]] for name in known if name in names), None)

        others = {  # of `label` and `y` the first is the label
            name: texts
            for name, texts in self.columns.items()
            if name not in used and (name.casefold() not in RESERVED or (name.casefold() == "y" and "label" in names))
        }
        return Cells(column(_ID), column(*_LABELS), column(_GROUP), column(_SPLIT), others)


def read_table(path: Path) -> Table:
    """Reads a CSV file with a header: UTF-8 or UTF-16 (`pipeline.runtime.texts`); commas, semicolons or tabs.

    Empty lines and empty columns without a name are left out. Spaces around names and cells do not count. Excel's first
    line `sep=;` is heeded.

    Raises:
        DataError: it cannot be read, is not such a file, a column's name is empty or used twice, or a line has more or
            fewer cells than the header.
    """
    try:
        csv.field_size_limit(_MOST_FIELD)
        text = decoded(path.read_bytes(), path)
        said = _SAID.match(text)
        file = io.StringIO(text, newline="")  # a cell may hold line ends of its own
        first = file.readline()
        if said:
            start, first = file.tell(), file.readline()
            file.seek(start)
        else:
            file.seek(0)
        delimiter = said[1] if said else max(_DELIMITERS, key=first.count)  # of equal counts the first, a comma
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = [clean(name) for name in next(reader, [])]
        if len(header) == 1 and re.search(r"\S[ |]+\S", header[0]):
            raise DataError(
                f"{path}: no comma, semicolon or tab is in its first line, {header[0]!r}",
                "the first line names the columns, such as label,x.0,x.1; remove other lines above it",
            )
        header, columns, lines = _columns(path, reader, header, int(bool(said)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        line = reader.line_num + int(bool(said))
        raise DataError(f"{path}, line {line}: is not a CSV file: {error}", _QUOTES) from error
    if not lines:
        raise DataError(f"{path}: has no rows below its header")
    return Table(path, dict(zip(header, columns, strict=True)), lines, delimiter)


def _columns(
    path: Path, reader: Any, header: Sequence[str], above: int
) -> tuple[list[str], list[list[str]], list[int]]:
    """The names of the columns, their cells, and the line of each row; `above` counts the lines above the header."""
    folded = [name.casefold() for name in header]
    for name in header:
        if name and folded.count(name.casefold()) > 1:
            raise DataError(
                f"{path}: its header has the column {name!r} twice", "the first line must name every column once"
            )
    columns: list[list[str]] = [[] for _ in header]
    lines = []
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            raise DataError(
                f"{path}, line {reader.line_num + above}: has {len(fields)} cells, but the header names {len(header)} "
                "columns",
                "a cell that contains the separator must stand in quotation marks",
            )
        for column, cell in zip(columns, fields, strict=True):
            column.append(cell.strip())
        lines.append(reader.line_num + above)
    named = [k for k, name in enumerate(header) if name]
    for k, cells in enumerate(columns):
        if not header[k] and any(cells):
            raise DataError(
                f"{path}: its header has a column without a name, of which a cell is {next(filter(None, cells))!r}",
                "the first line must name every column once; pandas leaves its index out: to_csv(FILE, index=False)",
            )
    return [header[k] for k in named], [columns[k] for k in named], lines
