"""What a cell holds comes back from the file, line ends of any kind included."""

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.runtime.csv_writing import csv_lines

CELLS = st.text(st.sampled_from('\r\n,;"\t a=') | st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=3), max_size=4))
@example([["a\rb", "c\nd", "e\r\n"]])
def test_every_cell_comes_back(rows: list[list[str]]) -> None:
    lines = list(csv_lines(rows))
    assert len(lines) == len(rows)
    assert list(csv.reader(io.StringIO("".join(lines), newline=""), strict=True)) == rows
    for line, row in zip(lines, rows, strict=True):
        assert line.endswith("\n")
        if not any("\r" in cell for cell in row):
            assert "\r" not in line


def test_numbers_and_nothing() -> None:
    assert list(csv_lines([("a", 1.5, None)])) == ["a,1.5,\n"]
