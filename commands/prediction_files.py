"""The files of predictions: CSV, JSON, Parquet."""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.runtime.csv_writing import csv_lines
from pipeline.runtime.errors import UsageError
from pipeline.runtime.files import atomic_path

KINDS = (".csv", ".json", ".parquet")


def check_writable(path: Path, *read: Path | None) -> None:
    """Checks the kind of a file before any work is done.

    Args:
        read: what the answers are made from.

    Raises:
        UsageError: it is none of ours, needs a library that is not installed, or is one of those that are read.
    """
    if path.exists() and any(other is not None and other.exists() and path.samefile(other) for other in read):
        raise UsageError(f"--out {path}: is the file that the rows are read from", "give the answers another name")
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--out {path}: predictions are written as {', '.join(KINDS)}", f"--out {path.stem}.csv")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError(f"--out {path}: Parquet files need pyarrow", "pip install pyarrow, or --out predictions.csv")


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes columns of one length, whole or not at all; None is an empty cell.

    Raises:
        StorageError: the disk is full or refuses.
    """
    with atomic_path(path) as temporary:
        match path.suffix.lower():
            case ".csv":
                with temporary.open("w", newline="", encoding="utf-8") as file:
                    file.writelines(csv_lines([columns, *zip(*columns.values(), strict=True)]))
            case ".json":
                rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
                temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            case _:
                table = import_module("pyarrow").table({name: list(values) for name, values in columns.items()})
                import_module("pyarrow.parquet").write_table(table, temporary)
