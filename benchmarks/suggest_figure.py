"""Draws what asking for the right labels gains, from the files of `benchmarks.suggest`, and prints it as a table.

    python -m benchmarks.suggest_figure hm-digits.json mfeat.json --out curves.svg

A panel for each file: the mean accuracy given all modalities against the number of labels, with a band of one standard
deviation over seeds, and the worst seed as a thin line.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainer.reporting.panel_layout import first_in_rows, row_or_grid, write_title
from trainer.reporting.plot_style import colour, line, marker, save, styled
from trainer.reporting.plots import legend_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WAYS = {"random": "drawn at random, equally many of each class", "suggest": "suggested"}
Points = Mapping[int, NDArray[np.float64]]  # by number of labels, the accuracies of all seeds


def points_of(path: Path, way: str) -> Points:
    """The accuracies given all modalities."""
    found: dict[int, list[float]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        if row["way"] == way:
            found.setdefault(row["labels"], []).append(row["accuracy"][max(row["accuracy"], key=len)])
    return {labels: np.array(values) for labels, values in sorted(found.items())}


@styled
def figure_of(paths: Sequence[Path]) -> "Figure":
    """All panels."""
    figure, panels = row_or_grid(len(paths))
    for panel, path in zip(panels, paths, strict=True):
        for number, (way, title) in enumerate(WAYS.items()):
            _curve(panel, points_of(path, way), title, number)
        write_title(panel, path.stem)
        panel.set_xlabel("labels")
        panel.grid(True)
    for panel in first_in_rows(panels):
        panel.set_ylabel("test accuracy (%), all modalities")
    legend_below(figure, panels)
    return figure


def _curve(panel: "Axes", points: Points, title: str, number: int) -> None:
    counts = list(points)
    means, deviations, worst = (
        np.array([f(values) for values in points.values()]) for f in (np.mean, _deviation, np.min)
    )
    ink, dashes = colour(number), line(number)
    panel.plot(counts, means, label=title, marker=marker(number), linewidth=2.2, color=ink, linestyle=dashes)
    panel.plot(counts, worst, label=f"{title}: the worst seed", linewidth=0.8, color=ink, linestyle=dashes)
    panel.fill_between(counts, means - deviations, means + deviations, color=colour(number), alpha=0.12, linewidth=0)
    panel.set_xticks(counts)


def _deviation(values: NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of benchmarks.suggest")
    parser.add_argument("--out", type=Path, required=True, help="SVG, PNG or PDF file")
    options = parser.parse_args()
    for path in options.results:
        for way in WAYS:
            for labels, values in points_of(path, way).items():
                print(
                    f"{path.stem}, {labels} labels, {way}: {values.mean():.1f} ± {_deviation(values):.1f}, "
                    f"worst {values.min():.1f} of {len(values)}"
                )
    save(figure_of(options.results), options.out)


if __name__ == "__main__":
    main()
