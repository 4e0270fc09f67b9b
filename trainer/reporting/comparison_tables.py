"""Experiment results as rows of text and as Markdown: the paper's number, ours and the difference, always together."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.runtime.text import markdown as escaped
from trainer.evaluation.intervals import PLUS_MINUS
from trainer.reporting.comparison import TOLERANCE, Block, Cell, ExperimentResult

OURS = f"ours: {PLUS_MINUS} over runs (number of runs)"
LEGEND = f"paper / {OURS} / ours minus the paper's"
DEVIATIONS = "docs/design/deviations.md"


@dataclass(frozen=True)
class CellText:
    """A cell as text: the paper's number, ours with the number of runs, and the difference, `-` if there is none.

    Attributes:
        low: whether to mark the difference.
        mark: `†1` if a note belongs to the cell.
    """

    paper: str
    ours: str
    difference: str
    low: bool
    mark: str


def text(block: Block, comparable: bool) -> tuple[list[tuple[str, list[CellText | None]]], list[str]]:
    """The block as text: cells by system (None: the system has no such input), and the notes that `†1`, `†2` mark.

    There are no differences if the data are not the paper's.
    """
    notes: list[str] = []

    def cell_text(cell: Cell) -> CellText | None:
        if cell == Cell():
            return None
        if cell.note and cell.note not in notes:
            notes.append(cell.note)
        compared = comparable and cell.difference is not None
        return CellText(
            paper=_paper(cell),
            ours=_ours(cell),
            difference=f"{cell.difference:+.2f}" if compared else "-",
            low=compared and cell.is_low,
            mark=f"†{notes.index(cell.note) + 1}" if cell.note else "",
        )

    return [(row.name, [cell_text(cell) for cell in row.cells]) for row in block.rows], notes


def legend(result: ExperimentResult) -> list[str]:
    """What a reader needs in addition to the numbers, one sentence each; how the runs are reduced comes first."""
    cells = [cell for block in result.blocks for row in block.rows for cell in row.cells]
    lines = [f"REDUCED: {'; '.join(result.reduced)}."] if result.reduced else []
    if not result.comparable and result.printed:
        lines.append(
            "These are not the paper's data: its numbers are shown next to ours for orientation, not for comparison."
        )
    if result.printed:
        lines.append(f"{LEGEND}.")
    elif cells:
        lines.append(f"{OURS[0].upper()}{OURS[1:]}.")
    if any(cell.printed is not None and cell.printed.std is not None for cell in cells):
        lines.append("The paper's own ± is the standard deviation over its trials.")
    if result.comparable and any(cell.is_low for cell in cells):
        lines.append(f"Differences are marked where ours is lower by more than {TOLERANCE} points.")
    if any(cell.printed is not None and cell.printed.quoted for cell in cells):
        lines.append("*: quoted by the paper from another paper.")
    return [*lines, *result.notes, f"Deliberate deviations from the paper: {DEVIATIONS}."]


def markdown(result: ExperimentResult) -> str:
    """The result as a Markdown document."""
    parts = [f"# {escaped(f'{result.name}: {result.title}')}", *map(escaped, legend(result))]
    if result.figure is not None:
        parts.append(f"![{escaped(result.title)}]({result.figure})")
    for block in result.blocks:
        systems, notes = text(block, result.comparable)
        rows = [[escaped(name), *(_joined(cell, result.printed) for cell in cells)] for name, cells in systems]
        lines = [["", *map(escaped, block.columns)], ["---"] * (1 + len(block.columns)), *rows]
        parts += [f"## {escaped(block.title)}", "\n".join(map(_line, lines))]
        if notes:
            parts.append("\n".join(f"- †{k}: {escaped(note)}" for k, note in enumerate(notes, 1)))
    if not result.blocks:
        parts.append("\n".join(["Runs:", "", *(f"- {escaped(name)}" for name in result.runs or ("none yet",))]))
    parts += [f"Made by `{value}`" for key, value in result.provenance.items() if key == "command"]
    return "\n\n".join(parts) + "\n"


def _joined(cell: CellText | None, printed: bool) -> str:
    if cell is None:
        return ""
    if not printed:
        return f"{cell.ours} {cell.mark}".rstrip()
    difference = f"**{cell.difference}**" if cell.low else cell.difference
    return f"{cell.paper} / {cell.ours} / {difference} {cell.mark}".rstrip()


def _paper(cell: Cell) -> str:
    printed = cell.printed
    if printed is None:
        return "-"
    spread = "" if printed.std is None else f" ± {printed.std:g}"
    return f"{printed.mean:.2f}{spread}{'*' if printed.quoted else ''}"


def _ours(cell: Cell) -> str:
    ours = cell.measured
    if ours is None:
        return "missing"
    spread = "" if ours.ci95 is None else f" ± {ours.ci95:.2f}"
    return f"{ours.mean:.2f}{spread} ({len(ours.values)})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
