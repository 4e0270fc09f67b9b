"""Figures of several panels: in one row, in a grid if there are many, or one below another; and texts that fit them."""

import math
import textwrap
from typing import TYPE_CHECKING

from pipeline.runtime.text import visible
from trainer.reporting.plot_style import letters_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Size = tuple[float, float]  # width and height, in inches

_IN_A_ROW: Size = (3.4, 3.8)
_IN_THE_GRID: Size = (3.4, 3.0)
_IN_A_COLUMN: Size = (6.4, 2.9)
_LEAST_WIDTH = 5.0  # inches
MOST_IN_A_ROW = 7  # panels of every subset of three modalities
GRID_COLUMNS = 4
LONGEST_NAME = 24  # letters of a class's name in a figure
_TITLE_SIZE = 10  # of a panel's title, and of the labels at its axes, in points
_TITLE_SHARE = 0.9  # of a panel's width, for its title


def row_or_grid(
    count: int,
    *,
    in_row: Size = _IN_A_ROW,
    in_grid: Size = _IN_THE_GRID,
    least_width: float = _LEAST_WIDTH,
    share_x: bool = False,
    share_y: bool = False,
    most: int = MOST_IN_A_ROW,
) -> tuple["Figure", "Sequence[Axes]"]:
    """A figure with panels next to one another, or in rows of four if there are too many.

    Args:
        in_row, in_grid: the size of a panel, in inches.
        least_width: of the figure, in inches.
        share_x, share_y: whether panels share an axis; its numbers are then at the edges alone.
        most: how many panels may stand in one row.
    """
    from matplotlib.figure import Figure

    in_one_row = count <= most
    columns = count if in_one_row else GRID_COLUMNS
    rows = math.ceil(count / columns)
    width, height = in_row if in_one_row else in_grid
    figure = Figure(figsize=(max(least_width, width * columns), height * rows), layout="constrained")
    cells = list(figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False).flat)
    for cell in cells[count:]:
        cell.remove()
    if not in_one_row:
        for panel in lowest(cells[:count]):  # also those above a cell that was removed
            panel.tick_params(labelbottom=True)
    return figure, cells[:count]


def column_of(count: int) -> tuple["Figure", "Sequence[Axes]"]:
    """A figure with wide panels one below another."""
    from matplotlib.figure import Figure

    width, height = _IN_A_COLUMN
    figure = Figure(figsize=(width, height * count), layout="constrained")
    return figure, list(figure.subplots(count, 1, squeeze=False).flat)


def first_in_rows(panels: "Sequence[Axes]") -> "Sequence[Axes]":
    """The panels that begin a row."""
    grid = panels[0].get_subplotspec()
    return panels[:: grid.get_gridspec().ncols] if grid is not None else panels


def lowest(panels: "Sequence[Axes]") -> "Sequence[Axes]":
    """The lowest panel of each column."""
    grid = panels[0].get_subplotspec()
    return panels[-grid.get_gridspec().ncols :] if grid is not None else panels


def write_title(panel: "Axes", title: str, beside: float = 0) -> None:
    """Writes a panel's title, in several lines if it is wider than the panel.

    Args:
        beside: how much of the panel's width the labels on its left take, in inches; what is wider than the rest
            extends over them.
    """
    grid, figure = panel.get_subplotspec(), panel.get_figure(root=True)
    assert grid is not None
    assert figure is not None
    width = _TITLE_SHARE * figure.get_figwidth() / grid.get_gridspec().ncols
    lines = textwrap.wrap(visible(title), letters_in(width, _TITLE_SIZE))
    fits = max(map(len, lines), default=0) <= letters_in(width - beside, _TITLE_SIZE)
    panel.set_title("\n".join(lines), loc="center" if fits else "right")


def shortened(name: str) -> str:
    """A name of at most `LONGEST_NAME` letters; an ellipsis stands for those in the middle if there are more."""
    name, half = visible(name), LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half].rstrip()}…{name[1 - half :].lstrip()}"
