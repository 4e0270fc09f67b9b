"""What an experiment came to, beside what the paper printed: the record behind tables, figures and pages.

`mmssl reproduce` writes an `ExperimentResult` as JSON; what shows results reads it back. Accuracies are in per cent.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.runtime.errors import DataError
from pipeline.runtime.files import write_if_changed

TOLERANCE = 0.5  # percentage points by which our number may be lower and still reach the paper's


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Printed(_Record):
    """A number of the paper's.

    Attributes:
        mean: as printed.
        std: over the trials, where the paper prints one.
        quoted: whether the paper took it from another paper.
    """

    mean: float
    std: float | None = None
    quoted: bool = False


class Measured(_Record):
    """A number of ours.

    Attributes:
        mean, std: over the runs; the latter None for a single one.
        values: one a run, in the order of `runs`.
        runs: the folders' names.
    """

    mean: float
    std: float | None
    values: tuple[float, ...]
    runs: tuple[str, ...]


class Cell(_Record):
    """One number of a table: the paper's, ours, or both; `note` says why one is missing, or what to know of them."""

    printed: Printed | None = None
    measured: Measured | None = None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the paper's, in percentage points."""
        return None if self.printed is None or self.measured is None else self.measured.mean - self.printed.mean

    @property
    def is_low(self) -> bool:
        """Whether our number is lower than the paper's by more than the tolerance."""
        return self.difference is not None and self.difference < -TOLERANCE


class Row(_Record):
    """One system; `ours` marks one that the paper does not have."""

    name: str
    cells: tuple[Cell, ...]
    ours: bool = False


class Block(_Record):
    """Rows over common columns, such as one data set of a table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


class ExperimentResult(_Record):
    """A table or a figure.

    Attributes:
        name: `table4`, `figure6`.
        title: one line.
        reduced: in what the runs fell short of the paper's protocol ("20 epochs instead of 500"); empty for none.
        comparable: whether the runs saw the paper's data; where not, a difference from its numbers means nothing.
        blocks: its numbers.
        figure: file name of its picture beside the JSON file, where there is one.
        runs: names of the folders of all finished runs that it rests on.
        notes: what a reader has to know, such as that some runs are missing.
        settings: what all runs have in common.
        provenance: versions, machine, command.
    """

    name: str
    title: str
    reduced: tuple[str, ...] = ()
    comparable: bool = True
    blocks: tuple[Block, ...] = ()
    figure: str | None = None
    runs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    @property
    def printed(self) -> bool:
        """Whether the paper prints any of its numbers."""
        return any(one.printed is not None for block in self.blocks for row in block.rows for one in row.cells)


def write_result(path: Path, outcome: ExperimentResult) -> None:
    write_if_changed(path, outcome.model_dump_json(indent=2) + "\n")


def read_result(path: Path) -> ExperimentResult:
    """
    Raises:
        DataError: the file is missing, or no outcome.
    """
    try:
        return ExperimentResult.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no {path}", "mmssl reproduce writes it") from None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path} is no outcome of an experiment: {first}", "mmssl reproduce writes it anew") from None
