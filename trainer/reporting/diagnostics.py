"""Pictures of a finished run that need its model: latent space, confusion matrices, reliability of its confidence."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.evaluate import BATCH, evaluating
from trainer.evaluation.metrics import BINS, calibration_error, confidence_bin
from trainer.evaluation.missing_modalities import completer
from trainer.evaluation.subsets import MOST_WITH_ALL_SHOWN, every_modality, shown_subsets, subset_title
from trainer.inference.loading import LoadedRun
from trainer.models.interface import Model
from trainer.nn.presence import given
from trainer.reporting.panel_layout import (
    GRID_COLUMNS,
    MOST_IN_A_ROW,
    first_in_rows,
    lowest,
    row_or_grid,
    shortened,
    write_title,
)
from trainer.reporting.plot_style import GREY, colour, marker, styled
from trainer.training.method import Predictions
from trainer.training.precision import precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 1500  # test examples shown of a latent space, at most
_MOST_NUMBERED = 12  # classes up to which a confusion matrix has its shares written in
_SMALLEST_SHARE = 0.005  # of those written: it rounds to 1 %
_WHITE_TEXT_FROM = 0.55  # the share from which a cell is dark enough for white text
_LONGEST_LEVEL_LABEL = 3  # letters of a class name that fit below a column without turning
_LABEL_INK = "#101418"  # on the light cells and boxes that these pictures have in any colour scheme
_POINT_SIZE, _POINT_SIZE_OF_ALL = 12, 160  # area of a reliability point in points^2: base, and what all examples add
_AXIS_END = 1.06  # of a reliability diagram, so that points at 1 are shown whole
_LETTER = 0.085  # width of a letter of a class name next to a confusion matrix, in inches
_LEGEND_TOP = -0.14  # of a legend below a panel, in heights of the panel
_LONGEST_IN_TWO_COLUMNS, _LONGEST_IN_LEGEND = 26, 46  # letters of a line of a reliability diagram's legend
# Widths and heights of panels, in inches.
_CONFUSIONS, _CONFUSIONS_IN_GRID = (4.1, 4.6), (3.4, 3.6)
_RELIABILITY, _RELIABILITY_OF_A_SIZE = (5.0, 4.6), (4.4, 5.6)
_LATENTS, _LATENTS_IN_GRID = (3.6, 3.9), (3.4, 3.2)
AllPredictions = dict[str, Predictions]  # by given modalities, `x+w`
Points = tuple[NDArray[np.float32], NDArray[np.int64]]  # of a latent space, `[N, Z]`, with their labels `[N]`


def predict(loaded: LoadedRun) -> AllPredictions:
    """Predicts the test set from every subset that is shown, with the model's first completion for the others.

    The rows are those that count in scores: they have any of the subset's modalities. A subset that none has is left
    out.
    """
    predicted: AllPredictions = {}
    for subset in shown_subsets([modality.name for modality in loaded.data.modalities]):
        (rows,) = loaded.data.test_rows_with(subset)
        if rows.any():
            log_q, label = loaded.trained.predictions(subset)
            predicted["+".join(subset)] = log_q[rows], label[rows]
    return predicted


def confusions(log_q: NDArray[np.float32], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """`[K, K]`: the share of each class's examples (row) predicted as each class; NaN for a class without examples."""
    classes = log_q.shape[1]
    counts = np.bincount(label * classes + log_q.argmax(-1), minlength=classes**2).reshape(classes, classes)
    total = counts.sum(1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


@styled
def confusion_figure(predictions: AllPredictions, classes: Sequence[str]) -> "Figure":
    """Confusion matrices, a panel for each subset of modalities; shares of the true class, in per cent."""
    many, every = len(predictions) > MOST_IN_A_ROW, every_modality(predictions)
    figure, panels = row_or_grid(
        len(predictions), in_row=_CONFUSIONS, in_grid=_CONFUSIONS_IN_GRID, least_width=0, share_x=many, share_y=many
    )
    names = [shortened(name) for name in classes]
    numbered = len(classes) <= _MOST_NUMBERED
    beside = _LETTER * max(map(len, names)) / (GRID_COLUMNS if many else 1) if numbered else 0
    for panel, (subset, (log_q, label)) in zip(panels, predictions.items(), strict=True):
        shares = confusions(log_q, label)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel.spines[:].set_visible(True)
        write_title(panel, f"given {subset_title(subset, every)}", beside)
        if not many or panel in lowest(panels):
            panel.set_xlabel("predicted class")
        if numbered:
            ticks = range(len(classes))
            turned = max(map(len, names)) > _LONGEST_LEVEL_LABEL
            panel.set_xticks(ticks, names, rotation=90 if turned else 0)
            panel.set_yticks(ticks, names)
            for row, column in np.argwhere(shares >= _SMALLEST_SHARE):
                ink = "white" if shares[row, column] > _WHITE_TEXT_FROM else _LABEL_INK
                text = f"{100 * shares[row, column]:.0f}"
                panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
    for panel in first_in_rows(panels):
        panel.set_ylabel("true class")
    return figure


def reliability(
    log_q: NDArray[np.float32], label: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean confidence, accuracy and number of examples of each nonempty bin; the bins are `calibration_error`'s."""
    confidence = np.exp(log_q.max(-1).astype(np.float64))
    correct = log_q.argmax(-1) == label
    bin_index = confidence_bin(confidence, bins)
    count = np.bincount(bin_index, minlength=bins)
    nonempty = count > 0
    mean = np.bincount(bin_index, confidence, minlength=bins)[nonempty] / count[nonempty]
    accuracy = np.bincount(bin_index, correct.astype(np.float64), minlength=bins)[nonempty] / count[nonempty]
    return mean, accuracy, count[nonempty]


@styled
def reliability_figure(predictions: AllPredictions) -> "Figure":
    """Accuracy against confidence, a line for each subset of modalities; larger points stand for more examples.

    With many modalities there is a panel for each number of them.
    """
    every = every_modality(predictions)
    if every.count("+") < MOST_WITH_ALL_SHOWN:
        figure, (panel,) = row_or_grid(1, in_row=_RELIABILITY)
        _reliability_lines(panel, predictions, every)
        labels = panel.get_legend_handles_labels()[1]
        figure.legend(loc="outside lower center", ncols=2 if max(map(len, labels)) <= _LONGEST_IN_TWO_COLUMNS else 1)
        return figure
    by_size: dict[int, AllPredictions] = {}
    for subset, predicted in predictions.items():
        by_size.setdefault(subset.count("+"), {})[subset] = predicted
    figure, panels = row_or_grid(len(by_size), in_row=_RELIABILITY_OF_A_SIZE, share_y=True)
    for panel, of_size in zip(panels, by_size.values(), strict=True):
        _reliability_lines(panel, of_size, every)
        panel.legend(loc="upper left", bbox_to_anchor=(0, _LEGEND_TOP))
    for panel in panels[1:]:
        panel.set_ylabel("")
    return figure


def _reliability_lines(panel: "Axes", predictions: AllPredictions, every: str) -> None:
    panel.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    for number, (subset, (log_q, label)) in enumerate(predictions.items()):
        mean, accuracy, count = reliability(log_q, label)
        error = calibration_error(np.exp(log_q.max(-1).astype(np.float64)), log_q.argmax(-1) == label)
        panel.plot(mean, accuracy, color=colour(number), linewidth=1.2)
        sizes = _POINT_SIZE + _POINT_SIZE_OF_ALL * count / count.sum()
        panel.scatter(
            mean,
            accuracy,
            s=sizes,
            color=colour(number),
            marker=marker(number),
            label=textwrap.fill(f"given {subset_title(subset, every)}: ECE {error:.3f}", _LONGEST_IN_LEGEND),
        )
    panel.set_xlim(0, _AXIS_END)
    panel.set_ylim(0, _AXIS_END)
    panel.set_xlabel("confidence")
    panel.set_ylabel("accuracy")
    panel.grid(True)


def latents(loaded: LoadedRun, points: int = POINTS) -> dict[str, Points]:
    """The latent variable's mean for the first test examples, for each subset of the modalities that is shown.

    An example that has none of a subset's modalities has no point there.
    """
    settings, data, trained = loaded.run.settings, loaded.data, loaded.generative
    model = cast(Model, trained.model)
    modalities = [modality.name for modality in data.modalities]
    shown = shown_subsets(modalities)
    batches: dict[str, list[NDArray[np.float32]]] = {"+".join(subset): [] for subset in shown}
    seen = 0
    with precision(settings, data.label.device), evaluating(trained.model, trained.noise):
        for index, (rows,) in data.test_batches(min(BATCH, points)):
            x = data.x(index)
            for subset in shown:
                fill = completer(
                    trained.completion(subset), trained.model, trained.noise, data.modalities, settings.iterations
                )
                latent = model.latent_mean(fill(given(x, subset)))
                batches["+".join(subset)].append(latent[0].float().cpu().numpy())
            seen += rows
            if seen >= points:
                break
    label = data.test_labels()[0][:points]
    found: dict[str, Points] = {}
    for subset in shown:
        there = data.test_rows_with(subset)[0][:points]
        if there.any():
            name = "+".join(subset)
            found[name] = np.concatenate(batches[name])[:points][there], label[there]
    return found


def project(points: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Projects each subset's points `[N, Z]` to two dimensions, by a PCA of the last subset's: that of all modalities.

    Points of one dimension get a second coordinate of 0.
    """
    from sklearn.decomposition import PCA

    joint = list(points.values())[-1]
    with np.errstate(invalid="ignore", divide="ignore"):  # of points that are all the same, the variance is 0
        pca = PCA(n_components=min(2, *joint.shape), random_state=0).fit(joint)
    projected = {given: pca.transform(subset) for given, subset in points.items()}
    return {given: np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))) for given, flat in projected.items()}


@styled
def latent_figure(loaded: LoadedRun) -> "Figure":
    """The latent space's first two principal components, a panel for each subset of modalities, coloured by class."""
    found = latents(loaded)
    projected = project({subset: points for subset, (points, _) in found.items()})
    figure, panels = row_or_grid(
        len(projected), in_row=_LATENTS, in_grid=_LATENTS_IN_GRID, least_width=0, share_x=True, share_y=True
    )
    every = every_modality(projected)
    for panel, (subset, points) in zip(panels, projected.items(), strict=True):
        label = found[subset][1]
        for number, name in enumerate(loaded.data.classes):
            of_class = points[label == number]
            if len(of_class):
                panel.scatter(
                    of_class[:, 0],
                    of_class[:, 1],
                    s=7,
                    color=colour(number),
                    marker=marker(number),
                    linewidths=0,
                    alpha=0.75,
                    rasterized=True,
                )
                _write_name(panel, np.median(of_class, axis=0), shortened(name))
        write_title(panel, f"given {subset_title(subset, every)}")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(True)
    return figure


def _write_name(panel: "Axes", position: NDArray[np.float32], name: str) -> None:
    """Writes a class's name into a panel, in a box that hides the points behind it."""
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    x, y = map(float, position)
    panel.text(x, y, name, ha="center", va="center", fontsize=8, color=_LABEL_INK, bbox=box)
