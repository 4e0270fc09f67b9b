"""An outcome as rows of text, and as Markdown: paper / ours / difference, never one without the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.reporting.comparison import TOLERANCE, Block, Cell, ExperimentResult

LEGEND = "paper / ours ± standard deviation (number of runs) / ours less the paper's"
DEVIATIONS = "docs/deviations.md"


@dataclass(frozen=True)
class Shown:
    """A cell in words: the paper's number, ours with the number of runs, and the difference, `-` where there is none.

    Attributes:
        low: whether the difference is to be marked.
        mark: `†1` where a note belongs to it.
    """

    paper: str
    ours: str
    difference: str
    low: bool
    mark: str


@dataclass(frozen=True)
class Text:
    """A block in words: cells by system (None: the system has no such input), and the notes of `†1`, `†2`."""

    rows: tuple[tuple[str, tuple[Shown | None, ...]], ...]
    notes: tuple[str, ...]


def text(block: Block, comparable: bool) -> Text:
    """The block in words; no difference where the data are not the paper's."""
    notes: list[str] = []

    def show(cell: Cell) -> Shown | None:
        if cell == Cell():
            return None
        if cell.note and cell.note not in notes:
            notes.append(cell.note)
        compared = comparable and cell.difference is not None
        return Shown(
            paper=_paper(cell),
            ours=_ours(cell),
            difference=f"{cell.difference:+.2f}" if compared else "-",
            low=compared and cell.is_low,
            mark=f"†{notes.index(cell.note) + 1}" if cell.note else "",
        )

    rows = tuple((row.name, tuple(map(show, row.cells))) for row in block.rows)
    return Text(rows, tuple(notes))


def legend(outcome: ExperimentResult) -> list[str]:
    """What a reader needs beside the numbers, a sentence each; what was reduced comes first."""
    cells = [cell for block in outcome.blocks for row in block.rows for cell in row.cells]
    lines = [f"REDUCED: {'; '.join(outcome.reduced)}."] if outcome.reduced else []
    if not outcome.comparable and outcome.printed:
        lines.append("The data are not the paper's: its numbers stand beside ours for orientation, not for comparison.")
    if outcome.printed:
        lines.append(f"{LEGEND}.")
    elif cells:
        lines.append("Ours ± standard deviation (number of runs).")
    if outcome.comparable and any(cell.is_low for cell in cells):
        lines.append(f"Marked where ours is lower by more than {TOLERANCE}.")
    if any(cell.printed is not None and cell.printed.quoted for cell in cells):
        lines.append("*: quoted by the paper from another one.")
    return [*lines, *outcome.notes, f"Where we differ from the paper on purpose: {DEVIATIONS}."]


def markdown(outcome: ExperimentResult) -> str:
    """The outcome as a Markdown document."""
    parts = [f"# {outcome.name}: {outcome.title}", *legend(outcome)]
    if outcome.figure is not None:
        parts.append(f"![{outcome.title}]({outcome.figure})")
    for block in outcome.blocks:
        written = text(block, outcome.comparable)
        rows = [[name, *(_joined(cell, outcome.printed) for cell in cells)] for name, cells in written.rows]
        lines = [["", *block.columns], ["---"] * (1 + len(block.columns)), *rows]
        parts += [f"## {block.title}", "\n".join(map(_line, lines))]
        if written.notes:
            parts.append("\n".join(f"- †{k}: {note}" for k, note in enumerate(written.notes, 1)))
    if not outcome.blocks:
        parts.append("\n".join(["Runs:", "", *(f"- {name}" for name in outcome.runs or ("none yet",))]))
    parts += [f"Made by `{value}`" for key, value in outcome.provenance.items() if key == "command"]
    return "\n\n".join(parts) + "\n"


def _joined(cell: Shown | None, printed: bool) -> str:
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
    spread = "" if ours.std is None else f" ± {ours.std:.2f}"
    return f"{ours.mean:.2f}{spread} ({len(ours.values)})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
