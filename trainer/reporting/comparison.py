"""An experiment's results next to the paper's numbers: the record behind tables, figures and reports.

`mmssl reproduce` writes an `ExperimentResult` as JSON; reports read it back. Accuracies are in per cent.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field, model_validator

from pipeline.runtime.errors import DataError
from pipeline.runtime.files import write_if_changed
from pipeline.runtime.texts import read_text
from pipeline.runtime.versions import check_known
from trainer.evaluation.intervals import mean_and_half_width

TOLERANCE = 0.5  # percentage points by which our number may be lower and still count as reaching the paper's


class Record(BaseModel):
    """Immutable values that are read from a file or written to one; unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Printed(Record):
    """A number that the paper prints.

    Attributes:
        mean: the number as printed.
        std: its standard deviation over the trials, if the paper prints one.
        quoted: whether the paper quotes it from another paper.
    """

    mean: float
    std: float | None = None
    quoted: bool = False


class Measured(Record):
    """A number that we measured.

    Attributes:
        mean, std: mean and standard deviation (n - 1) over the runs; no standard deviation (None) for a single run.
        values: one per run, in the order of `runs`.
        runs: names of the runs' folders.
        ci95: half the width of the mean's 95 % confidence interval (Student's t over the runs), which tables show as
            ±; None for a single run. It is written to files and computed from the values when they are read.
    """

    mean: float
    std: float | None
    values: tuple[float, ...]
    runs: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def _recomputed(cls, content: Any) -> Any:
        return {key: value for key, value in content.items() if key != "ci95"} if isinstance(content, dict) else content

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ci95(self) -> float | None:
        return mean_and_half_width(self.values)[1] if self.values else None


class Cell(Record):
    """One number of a table: the paper's, ours, or both; `note` says why one is missing, or what to know about them."""

    printed: Printed | None = None
    measured: Measured | None = None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, in percentage points; None unless there are both."""
        return None if self.printed is None or self.measured is None else self.measured.mean - self.printed.mean

    @property
    def is_low(self) -> bool:
        """Whether our number is lower than the paper's by more than the tolerance."""
        return self.difference is not None and self.difference < -TOLERANCE


class Row(Record):
    """The numbers of one system; `ours` marks a system that is not in the paper."""

    name: str
    cells: tuple[Cell, ...]
    ours: bool = False


class Block(Record):
    """Rows with common columns, such as a table's numbers on one data set."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


class ExperimentResult(Record):
    """The results of one table or figure.

    Attributes:
        name: `table4`, `figure6`.
        title: one line.
        reduced: how the runs fall short of the paper's protocol ("20 epochs instead of 500"); empty if they do not.
        comparable: whether the runs saw the paper's data; if not, a difference from its numbers means nothing.
        blocks: the numbers.
        figure: file name of the picture next to the JSON file, if there is one.
        runs: folder names of all finished runs that the numbers come from.
        notes: what a reader has to know, such as that some runs are missing.
        settings: the settings that all runs have in common.
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
        """Whether the paper prints any of these numbers."""
        return any(cell.printed is not None for block in self.blocks for row in block.rows for cell in row.cells)


def write_result(path: Path, result: ExperimentResult) -> None:
    """Writes a result as JSON, unless the file already holds it."""
    write_if_changed(path, result.model_dump_json(indent=2) + "\n")


def read_result(path: Path) -> ExperimentResult:
    """Reads a result from its JSON file.

    Raises:
        DataError: the file is missing, or is not an experiment result.
    """
    try:
        return ExperimentResult.model_validate_json(read_text(path))
    except FileNotFoundError:
        raise DataError(f"there is no {path}", "mmssl reproduce writes it") from None
    except (OSError, ValidationError) as error:
        if isinstance(error, ValidationError):
            check_known(path, error)
        first = str(error).splitlines()[0]
        raise DataError(f"{path} is not an experiment result: {first}", "mmssl reproduce writes it again") from None
