"""The learning curves of a comparison with rivals: accuracy against the number of labels."""

from typing import TYPE_CHECKING

from trainer.evaluation.subsets import every_modality, subset_title
from trainer.reporting.panel_layout import GRID_COLUMNS, first_in_rows, row_or_grid, write_title
from trainer.reporting.plot_style import colour, line, marker, styled
from trainer.reporting.plots import legend_below
from trainer.reporting.rival_comparison import ComparedSystem, RivalComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[float, ComparedSystem]]  # by number of labels


@styled
def rival_figure(comparison: RivalComparison) -> "Figure":
    """Test accuracy against the number of labels: a panel for each column, a line for each system.

    A band is the 95 % interval of the mean, as far as it lies between 0 and 100 %; with a single number of labels it is
    a bar.
    """
    figure, panels = row_or_grid(len(comparison.given), share_y=True, most=GRID_COLUMNS)
    every = every_modality(comparison.given)
    counts = sorted({level.count for level in comparison.levels})
    titles = list(dict.fromkeys(system.title for level in comparison.levels for system in level.systems))
    for panel, given in zip(panels, comparison.given, strict=True):
        for number, title in enumerate(titles):
            points: Points = [
                (level.count, system)
                for level in sorted(comparison.levels, key=lambda level: level.count)
                for system in level.systems
                if system.title == title
            ]
            _curve(panel, points, given, number)
        panel.set_xscale("log")
        panel.set_xticks(counts, [f"{count:g}" for count in counts])
        panel.minorticks_off()
        write_title(panel, f"given {subset_title(given, every)}")
        panel.set_xlabel("labels")
        panel.grid(True)
    for panel in first_in_rows(panels):
        panel.set_ylabel("test accuracy (%)")
    legend_below(figure, panels)
    return figure


def _curve(panel: "Axes", points: Points, given: str, number: int) -> None:
    counts = [count for count, _ in points]
    measured = [system.accuracy[given] for _, system in points]
    means = [accuracy.mean for accuracy in measured]
    half_widths = [accuracy.half_width or 0.0 for accuracy in measured]
    ours = points[0][1].ours
    panel.plot(
        counts,
        means,
        label=points[0][1].title,
        color=colour(number),
        marker=marker(number),
        linestyle=line(number),
        linewidth=2.2 if ours else 1.2,
        markersize=6 if ours else 4,
    )
    if len(points) == 1:
        below, above = min(half_widths[0], means[0]), min(half_widths[0], 100 - means[0])
        panel.errorbar(counts, means, yerr=[[below], [above]], color=colour(number), capsize=3)
        return
    low = [max(0.0, mean - half) for mean, half in zip(means, half_widths, strict=True)]
    high = [min(100.0, mean + half) for mean, half in zip(means, half_widths, strict=True)]
    panel.fill_between(counts, low, high, color=colour(number), alpha=0.12, linewidth=0)
