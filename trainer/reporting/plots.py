"""The paper's figures, and others drawn from the metrics and results in the runs' folders.

Each `..._figure` function makes a matplotlib figure, which `trainer.reporting.plot_style.save` writes; `figure4`,
`figure5`, `figure6` and `curves` do both.
"""

import statistics
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.errors import DataError
from trainer.evaluation.subsets import every_modality, shown_among, subset_title
from trainer.inference.loading import CPU
from trainer.models.registry import card
from trainer.reporting.generated_images import generation_figure
from trainer.reporting.panel_layout import column_of, first_in_rows, row_or_grid, write_title
from trainer.reporting.plot_style import colour, letters, line, marker, save, styled
from trainer.reporting.run_tables import REPLICA_SETTINGS, grouped
from trainer.settings.describe import names
from trainer.training.run_folder import Run

if TYPE_CHECKING:
    import torch
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[list[float], list[float], list[float]]  # mean, lowest and highest over replicas, one entry per epoch

_MARKERS = 8  # on a curve, about
_TITLE_SIZE, _LEGEND_SIZE = 12, 8  # of the letters that a line has room for, in points
_LEGEND_SAMPLE = 8  # width of the line and gaps that go with a label in the legend, in letters
_LEGEND_COLUMNS = 3


def figure4(runs: Sequence[Run], path: Path) -> None:
    """Accuracy per epoch, a line for each alpha: `alpha_figure`, written to a .svg, .png or .pdf file."""
    save(alpha_figure(runs), path)


def figure5(runs: Sequence[Run], path: Path, device: "torch.device | None" = None) -> None:
    """Each modality generated from the others, a panel for each data set and direction (`generation_figure`).

    Args:
        path: a .svg, .png or .pdf file.
        device: where to generate; None for the CPU.
    """
    save(generation_figure(runs, device or CPU), path)


def figure6(runs: Sequence[Run], path: Path) -> None:
    """Accuracy per split, by modality and model: `splits_figure`, written to a .svg, .png or .pdf file."""
    save(splits_figure(runs), path)


def curves(runs: Sequence[Run], path: Path) -> None:
    """Accuracy against epochs: `curves_figure`, written to a .svg, .png or .pdf file."""
    save(curves_figure(runs), path)


@styled
def curves_figure(runs: Sequence[Run]) -> "Figure":
    """Accuracy against epochs: a panel for each subset of modalities that is shown, a line for each setting's mean.

    A band spans the replicas.

    Raises:
        DataError: none of the runs has finished an epoch, or they do not measure accuracy.
    """
    groups = _trained(runs)
    common, labels = names([group[0].settings for group in groups], titled=True)
    turns = " or ".join(sorted({group[0].settings.turns.removesuffix("s") for group in groups}))
    measured = [curves_of(group) for group in groups]
    subsets, every = _shown(measured)
    subsets.sort(key=lambda subset: subset.count("+"))
    figure, panels = row_or_grid(len(subsets), share_y=True)
    for panel, subset in zip(panels, subsets, strict=True):
        for number, (by_subset, label) in enumerate(zip(measured, labels, strict=True)):
            if subset in by_subset:
                _line(panel, by_subset[subset], label, number)
        _epochs(panel, f"given {subset_title(subset, every)}", turns)
    for panel in first_in_rows(panels):
        panel.set_ylabel("test accuracy (%)")
    figure.suptitle(textwrap.fill(common, letters(figure, _TITLE_SIZE)))
    if len(groups) > 1:
        legend_below(figure, panels)
    return figure


@styled
def alpha_figure(runs: Sequence[Run]) -> "Figure":
    """Test accuracy per epoch, given all modalities: a panel for each model and data set, a line for each alpha.

    Raises:
        DataError: none of the runs has finished an epoch, or they do not measure accuracy.
    """
    groups = _trained(runs)
    titles = [f"{card(group[0].settings.model).title}, {group[0].settings.data}" for group in groups]
    alphas = sorted({group[0].settings.alpha for group in groups})
    figure, panels = row_or_grid(len(set(titles)))
    for panel, title in zip(panels, dict.fromkeys(titles), strict=True):
        in_panel = [group for group, group_title in zip(groups, titles, strict=True) if group_title == title]
        _, differences = names([group[0].settings for group in in_panel], titled=True)
        by_alpha = len({group[0].settings.alpha for group in in_panel}) == len(in_panel)
        labelled = zip(in_panel, differences, strict=True)
        for group, difference in sorted(labelled, key=lambda pair: pair[0][0].settings.alpha):
            alpha = group[0].settings.alpha
            label = f"alpha {alpha:g}" if by_alpha else difference or f"alpha {alpha:g}"
            measured = curves_of(group)
            _line(panel, measured[max(measured, key=lambda subset: subset.count("+"))], label, alphas.index(alpha))
        _epochs(panel, title, "epoch")
        panel.set_ylabel("test accuracy (%)")
    legend_below(figure, panels)
    return figure


@styled
def splits_figure(runs: Sequence[Run]) -> "Figure":
    """Test accuracy by split: a panel for each single modality, a line for each model.

    Missing modalities are completed by the model's first completion (`Model.completions`).

    Raises:
        DataError: a run is not done, or has no split.
    """
    for run in runs:
        if run.settings.split is None:
            raise DataError(
                f"{run.folder} is a run on data without splits", "train on one or more splits: --split 0..9"
            )
    groups = grouped(runs)
    labels = _labels(groups)
    accuracies = [by_split(group) for group in groups]
    modalities = list(dict.fromkeys(given for by_given in accuracies for given in by_given if "+" not in given))
    figure, panels = column_of(len(modalities))
    splits = sorted({split for by_given in accuracies for on_splits in by_given.values() for split in on_splits})
    for panel, modality in zip(panels, modalities, strict=True):
        for number, (by_given, label) in enumerate(zip(accuracies, labels, strict=True)):
            if modality not in by_given:
                continue
            points = sorted(by_given[modality].items())
            panel.plot(
                [splits.index(split) for split, _ in points],
                [accuracy for _, accuracy in points],
                label=label,
                color=colour(number),
                marker=marker(number),
                linewidth=1.2,
            )
        panel.set_title(f"given {modality}")
        panel.set_xticks(range(len(splits)), list(map(str, splits)))
        panel.set_ylabel("test accuracy (%)")
        panel.grid(True)
    panels[-1].set_xlabel("split")
    legend_below(figure, panels)
    return figure


@styled
def labels_figure(runs: Sequence[Run]) -> "Figure":
    """Test accuracy against the number of labels: a panel for each subset that is shown, a line for each model.

    A bar spans the replicas.

    Raises:
        DataError: a run is not done.
    """
    lines: dict[str, list[list[Run]]] = {}
    for group in grouped(runs):
        key = group[0].settings.model_dump_json(exclude=REPLICA_SETTINGS | {"labels"})
        lines.setdefault(key, []).append(group)
    labels = _labels([groups[0] for groups in lines.values()])
    accuracies = [
        [(statistics.fmean(len(run.labelled_ids()) for run in group), _accuracies(group)) for group in groups]
        for groups in lines.values()
    ]
    subsets, every = _shown([by_given for by_count in accuracies for _, by_given in by_count])
    figure, panels = row_or_grid(len(subsets), share_y=True)
    counts = sorted({count for by_count in accuracies for count, _ in by_count})
    for panel, subset in zip(panels, subsets, strict=True):
        for number, (by_count, label) in enumerate(zip(accuracies, labels, strict=True)):
            points = sorted((count, by_given[subset]) for count, by_given in by_count if subset in by_given)
            means = [statistics.fmean(values) for _, values in points]
            below = [mean - min(values) for mean, (_, values) in zip(means, points, strict=True)]
            above = [max(values) - mean for mean, (_, values) in zip(means, points, strict=True)]
            panel.errorbar(
                [count for count, _ in points],
                means,
                yerr=[below, above],
                label=label,
                color=colour(number),
                marker=marker(number),
                capsize=3,
            )
        panel.set_xscale("log")
        panel.set_xticks(counts, [f"{count:g}" for count in counts])
        panel.minorticks_off()
        write_title(panel, f"given {subset_title(subset, every)}")
        panel.set_xlabel("labels")
        panel.grid(True)
    for panel in first_in_rows(panels):
        panel.set_ylabel("test accuracy (%)")
    legend_below(figure, panels)
    return figure


def curves_of(group: Sequence[Run]) -> dict[str, Curve]:
    """Accuracy in per cent after each epoch that the whole group has finished, by given modalities (`x+w`)."""
    metrics = [run.metrics() for run in group]
    epochs = min(map(len, metrics))
    measured: dict[str, Curve] = {}
    for key in metrics[0][0]:
        if key.startswith("accuracy "):
            values = [[100 * float(rows[k][key]) for rows in metrics] for k in range(epochs)]
            measured[key.removeprefix("accuracy ")] = (
                [statistics.fmean(replicas) for replicas in values],
                [min(replicas) for replicas in values],
                [max(replicas) for replicas in values],
            )
    return measured


def by_split(group: Sequence[Run]) -> dict[str, dict[int, float]]:
    """Each split's accuracy in per cent, as a mean over its seeds, by given modalities."""
    accuracies: dict[str, dict[int, list[float]]] = {}
    for run in group:
        assert run.settings.split is not None
        for given, accuracy in first_scores(run).items():
            accuracies.setdefault(given, {}).setdefault(run.settings.split, []).append(accuracy)
    return {
        given: {split: statistics.fmean(seeds) for split, seeds in on_splits.items()}
        for given, on_splits in accuracies.items()
    }


def first_scores(run: Run) -> dict[str, float]:
    """A run's accuracy in per cent by given modalities, with the model's first completion if it has several."""
    accuracies: dict[str, float] = {}
    for score in run.result().scores:
        accuracies.setdefault(score.given, 100 * score.accuracy)
    return accuracies


def _accuracies(group: Sequence[Run]) -> dict[str, list[float]]:
    """The replicas' accuracies in per cent by given modalities, with the model's first completion."""
    accuracies: dict[str, list[float]] = {}
    for run in group:
        for given, accuracy in first_scores(run).items():
            accuracies.setdefault(given, []).append(accuracy)
    return accuracies


def _shown(measured: Sequence[Iterable[str]]) -> tuple[list[str], str]:
    """The subsets to show of those that some runs measured, and all modalities (`every_modality`)."""
    shown = list(dict.fromkeys(subset for of_run in measured for subset in shown_among(of_run)))
    return shown, every_modality(shown)


def _trained(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of replicas that have finished an epoch and measure accuracy.

    Raises:
        DataError: there are none.
    """
    groups = grouped([run for run in runs if run.metrics()])
    if not groups:
        raise DataError("none of these runs has a finished epoch, so there is no curve", "train one: mmssl train")
    measured = [group for group in groups if any(key.startswith("accuracy ") for key in group[0].metrics()[0])]
    if not measured:
        raise DataError("these runs measure no accuracy after an epoch: their models have no classifier")
    return measured


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """The models' titles if they tell the groups apart; otherwise everything that does."""
    titles = [card(group[0].settings.model).title for group in groups]
    if len(set(titles)) == len(titles):
        return titles
    common, differences = names([group[0].settings for group in groups], titled=True)
    return [difference or common for difference in differences]


def _line(panel: "Axes", curve: Curve, label: str, number: int) -> None:
    mean, low, high = curve
    epochs = range(1, len(mean) + 1)
    panel.plot(
        epochs,
        mean,
        label=label,
        color=colour(number),
        marker=marker(number),
        linestyle=line(number),
        markevery=max(1, len(mean) // _MARKERS),
        markersize=4,
    )
    if low != high:
        panel.fill_between(epochs, low, high, color=colour(number), alpha=0.18, linewidth=0)


def _epochs(panel: "Axes", title: str, turns: str) -> None:
    from matplotlib.ticker import MaxNLocator

    write_title(panel, title)
    panel.set_xlabel(turns)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(True)


def legend_below(figure: "Figure", panels: "Sequence[Axes]") -> None:
    """Adds one legend for all panels, below them, in as many columns as there is room for."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        panel_handles, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(map(str, labels), panel_handles, strict=True))
    room = letters(figure, _LEGEND_SIZE) - _LEGEND_SAMPLE
    longest = max(map(len, handles), default=0)
    columns = max(1, min(_LEGEND_COLUMNS, room // (longest + _LEGEND_SAMPLE)))
    labels = [textwrap.fill(label, room) for label in handles]
    figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=columns)
