"""The paper's figures, and others that need no more than what lies in the runs' folders: metrics and results.

Each `..._figure` function makes a matplotlib figure, which `trainer.reporting.plot_style.save` writes; `figure4`,
`figure5` and `figure6` do both.
"""

import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.errors import DataError
from trainer.inference.loading import CPU
from trainer.models.registry import card
from trainer.reporting.generated_images import generation_figure
from trainer.reporting.plot_style import colour, letters, line, marker, save, styled
from trainer.reporting.run_tables import grouped
from trainer.settings.describe import names
from trainer.training.run_folder import Run

if TYPE_CHECKING:
    import torch
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[list[float], list[float], list[float]]  # mean, lowest and highest over replicas, an entry an epoch


def figure4(runs: Sequence[Run], path: Path) -> None:
    """Accuracy per epoch, a line for each alpha: `alpha_figure`, written to a .svg, .png or .pdf file."""
    save(alpha_figure(runs), path)


def figure5(runs: Sequence[Run], path: Path, device: "torch.device | None" = None) -> None:
    """Each modality from the others, a panel for each data set and direction (`generation_figure`).

    Args:
        path: a .svg, .png or .pdf file.
        device: the CPU where None.
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
    """Accuracy against epochs: a panel for each subset of modalities, a line for each setting's mean.

    A band spans the replicas.

    Raises:
        DataError: none of the runs has an epoch behind it, or they measure no accuracy.
    """
    groups = _trained(runs)
    common, labels = names([group[0].settings for group in groups], titled=True)
    turns = " or ".join(sorted({group[0].settings.turns.removesuffix("s") for group in groups}))
    measured = [curves_of(group) for group in groups]
    subsets = sorted(dict.fromkeys(key for own in measured for key in own), key=lambda key: key.count("+"))
    figure, panels = _panels(len(subsets), share_y=True)
    for panel, subset in zip(panels, subsets, strict=True):
        for number, (own, label) in enumerate(zip(measured, labels, strict=True)):
            if subset in own:
                _line(panel, own[subset], label, number)
        _epochs(panel, f"given {subset}", turns)
    panels[0].set_ylabel("test accuracy (%)")
    figure.suptitle(textwrap.fill(common, letters(figure, 12)))
    if len(groups) > 1:
        _legend(figure, panels)
    return figure


@styled
def alpha_figure(runs: Sequence[Run]) -> "Figure":
    """Test accuracy, given all modalities, per epoch: a panel for each model and data set, a line for each alpha.

    Raises:
        DataError: none of the runs has an epoch behind it, or they measure no accuracy.
    """
    groups = _trained(runs)
    titles = [f"{card(group[0].settings.model).title}, {group[0].settings.data}" for group in groups]
    alphas = sorted({group[0].settings.alpha for group in groups})
    figure, panels = _panels(len(set(titles)), share_y=False)
    for panel, title in zip(panels, dict.fromkeys(titles), strict=True):
        own = [group for group, its in zip(groups, titles, strict=True) if its == title]
        _, besides = names([group[0].settings for group in own], titled=True)
        by_alpha = len({group[0].settings.alpha for group in own}) == len(own)
        for group, beside in sorted(zip(own, besides, strict=True), key=lambda pair: pair[0][0].settings.alpha):
            alpha = group[0].settings.alpha
            label = f"alpha {alpha:g}" if by_alpha else beside or f"alpha {alpha:g}"
            measured = curves_of(group)
            _line(panel, measured[max(measured, key=lambda subset: subset.count("+"))], label, alphas.index(alpha))
        _epochs(panel, title, "epoch")
        panel.set_ylabel("test accuracy (%)")
    _legend(figure, panels)
    return figure


@styled
def splits_figure(runs: Sequence[Run]) -> "Figure":
    """Test accuracy by split: a panel for each single modality, a line for each model.

    What stands in for the missing modalities is the model's first means (`Model.completions`).

    Raises:
        DataError: a run is not done, or has no split.
    """
    for run in runs:
        if run.settings.split is None:
            raise DataError(f"{run.folder} is a run on data without splits", "train on one split or more: --split 0..9")
    groups = grouped(runs)
    labels = _models(groups)
    scores = [by_split(group) for group in groups]
    modalities = list(dict.fromkeys(given for own in scores for given in own if "+" not in given))
    figure, panels = _panels(len(modalities), share_y=False, across=False)
    splits = sorted({split for own in scores for by in own.values() for split in by})
    for panel, modality in zip(panels, modalities, strict=True):
        for number, (own, label) in enumerate(zip(scores, labels, strict=True)):
            if modality not in own:
                continue
            points = sorted(own[modality].items())
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
    _legend(figure, panels)
    return figure


@styled
def labels_figure(runs: Sequence[Run]) -> "Figure":
    """Test accuracy against the number of labels: a panel for each subset of modalities, a line for each model.

    A bar spans the replicas.

    Raises:
        DataError: a run is not done.
    """
    lines: dict[str, list[list[Run]]] = {}
    for group in grouped(runs):
        key = group[0].settings.model_dump_json(exclude={"seed", "split", "digest", "labels"})
        lines.setdefault(key, []).append(group)
    labels = _models([groups[0] for groups in lines.values()])
    accuracies = [
        [(statistics.fmean(len(run.labelled_ids()) for run in group), _accuracies(group)) for group in groups]
        for groups in lines.values()
    ]
    subsets = list(dict.fromkeys(given for own in accuracies for _, by in own for given in by))
    figure, panels = _panels(len(subsets), share_y=True)
    counts = sorted({count for own in accuracies for count, _ in own})
    for panel, subset in zip(panels, subsets, strict=True):
        for number, (own, label) in enumerate(zip(accuracies, labels, strict=True)):
            points = sorted((count, by[subset]) for count, by in own if subset in by)
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
        panel.set_title(f"given {subset}")
        panel.set_xlabel("labels")
        panel.grid(True)
    panels[0].set_ylabel("test accuracy (%)")
    _legend(figure, panels)
    return figure


def curves_of(group: Sequence[Run]) -> dict[str, Curve]:
    """By given modalities (`x+w`), accuracy in per cent after each epoch that the whole group has behind it."""
    metrics = [run.metrics() for run in group]
    epochs = min(map(len, metrics))
    found: dict[str, Curve] = {}
    for key in metrics[0][0]:
        if key.startswith("accuracy "):
            values = [[100 * float(rows[k][key]) for rows in metrics] for k in range(epochs)]
            found[key.removeprefix("accuracy ")] = (
                [statistics.fmean(own) for own in values],
                [min(own) for own in values],
                [max(own) for own in values],
            )
    return found


def by_split(group: Sequence[Run]) -> dict[str, dict[int, float]]:
    """By given modalities, each split's accuracy in per cent, a mean over its seeds."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in group:
        assert run.settings.split is not None
        for given, accuracy in first_scores(run).items():
            found.setdefault(given, {}).setdefault(run.settings.split, []).append(accuracy)
    return {given: {split: statistics.fmean(own) for split, own in by.items()} for given, by in found.items()}


def first_scores(run: Run) -> dict[str, float]:
    """By given modalities, a run's accuracy in per cent; of several means against missing ones the model's first."""
    found: dict[str, float] = {}
    for score in run.result().scores:
        found.setdefault(score.given, 100 * score.accuracy)
    return found


def _accuracies(group: Sequence[Run]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for run in group:
        for given, accuracy in first_scores(run).items():
            found.setdefault(given, []).append(accuracy)
    return found


def _trained(runs: Sequence[Run]) -> list[list[Run]]:
    groups = grouped([run for run in runs if run.metrics()])
    if not groups:
        raise DataError("none of these runs has a finished epoch, so there is no curve", "train one: mmssl train")
    measured = [group for group in groups if any(key.startswith("accuracy ") for key in group[0].metrics()[0])]
    if not measured:
        raise DataError("these runs measure no accuracy after an epoch: their models have no classifier")
    return measured


def _models(groups: Sequence[Sequence[Run]]) -> list[str]:
    """The models' names where they tell the groups apart, else all that tells them apart."""
    titles = [card(group[0].settings.model).title for group in groups]
    if len(set(titles)) == len(titles):
        return titles
    common, besides = names([group[0].settings for group in groups], titled=True)
    return [beside or common for beside in besides]


def _panels(count: int, *, share_y: bool, across: bool = True) -> tuple["Figure", "Sequence[Axes]"]:
    from matplotlib.figure import Figure

    size = (max(5.0, 3.4 * count), 3.8) if across else (6.4, 2.9 * count)
    figure = Figure(figsize=size, layout="constrained")
    shape = (1, count) if across else (count, 1)
    return figure, list(figure.subplots(*shape, sharey=share_y, squeeze=False).flat)


def _line(panel: "Axes", curve: Curve, label: str, number: int) -> None:
    mean, low, high = curve
    epochs = range(1, len(mean) + 1)
    every = max(1, len(mean) // 8)
    panel.plot(
        epochs,
        mean,
        label=label,
        color=colour(number),
        marker=marker(number),
        linestyle=line(number),
        markevery=every,
        markersize=4,
    )
    if low != high:
        panel.fill_between(epochs, low, high, color=colour(number), alpha=0.18, linewidth=0)


def _epochs(panel: "Axes", title: str, turns: str) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_title(title)
    panel.set_xlabel(turns)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(True)


def _legend(figure: "Figure", panels: "Sequence[Axes]") -> None:
    """One for all panels, below them, in as many columns as there is room for."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        own, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(map(str, labels), own, strict=True))
    room = letters(figure, 8) - 8  # less the line that a label stands beside
    columns = max(1, min(3, room // (max(map(len, handles), default=0) + 8)))
    labels = [textwrap.fill(label, room) for label in handles]
    figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=columns)
