"""How rows become the lines of a CSV file, whatever is in their cells."""

import csv
import io
from collections.abc import Iterable, Iterator

_END = "\r\n"  # with it Python's writer quotes a cell that holds either of the two, as every reader needs it


def csv_lines(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    r"""Each row as a line that ends in `\n`, for a file that is opened with `newline=""`; None is an empty cell."""
    line = io.StringIO(newline="")
    writer = csv.writer(line, lineterminator=_END)
    for row in rows:
        writer.writerow(row)
        yield line.getvalue().removesuffix(_END) + "\n"
        line.seek(0)
        line.truncate()
