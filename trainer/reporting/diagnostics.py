"""Pictures of a finished run that need its model: latent space, confusion matrices, reliability of its confidence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.evaluate import BATCH, evaluating
from trainer.evaluation.metrics import BINS, calibration_error, confidence_bin, subsets
from trainer.evaluation.missing_modalities import completer
from trainer.inference.loading import LoadedRun
from trainer.models.interface import Model
from trainer.reporting.plot_style import GREY, colour, marker, styled
from trainer.training.method import Predictions
from trainer.training.step import precision

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
AllPredictions = dict[str, Predictions]  # by given modalities, `x+w`


def predict(loaded: LoadedRun) -> AllPredictions:
    """Predicts the test set from every subset of modalities, with the model's first completion for the others.

    As in the scores, examples that have none of a subset's modalities are left out.
    """
    found: AllPredictions = {}
    for given in subsets([modality.name for modality in loaded.data.modalities]):
        (rows,) = loaded.data.test_rows_with(given)
        if rows.any():
            log_q, label = loaded.trained.predictions(given)
            found["+".join(given)] = log_q[rows], label[rows]
    return found


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.1 * len(predictions), 4.6), layout="constrained")
    for panel, (given, (log_q, label)) in zip(
        figure.subplots(1, len(predictions), squeeze=False).flat, predictions.items(), strict=True
    ):
        shares = confusions(log_q, label)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel.spines[:].set_visible(True)
        panel.set_title(f"given {given}")
        panel.set_xlabel("predicted class")
        if len(classes) <= _MOST_NUMBERED:
            ticks = range(len(classes))
            turned = max(map(len, classes)) > _LONGEST_LEVEL_LABEL
            panel.set_xticks(ticks, list(classes), rotation=90 if turned else 0)
            panel.set_yticks(ticks, list(classes))
            for row, column in np.argwhere(shares >= _SMALLEST_SHARE):
                ink = "white" if shares[row, column] > _WHITE_TEXT_FROM else _LABEL_INK
                text = f"{100 * shares[row, column]:.0f}"
                panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
    figure.axes[0].set_ylabel("true class")
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
    """Accuracy against confidence, a line for each subset of modalities; larger points stand for more examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.6), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    for number, (given, (log_q, label)) in enumerate(predictions.items()):
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
            label=f"given {given}: ECE {error:.3f}",
        )
    panel.set_xlim(0, _AXIS_END)
    panel.set_ylim(0, _AXIS_END)
    panel.set_xlabel("confidence")
    panel.set_ylabel("accuracy")
    panel.grid(True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def latents(loaded: LoadedRun, points: int = POINTS) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """The latent variable's mean `[N, Z]` for the first test examples, by given modalities, and their labels `[N]`.

    It is NaN for examples that have none of the modalities.
    """
    settings, data, trained = loaded.run.settings, loaded.data, loaded.generative
    model = cast(Model, trained.model)
    modalities = [modality.name for modality in data.modalities]
    batches: dict[str, list[NDArray[np.float32]]] = {"+".join(given): [] for given in subsets(modalities)}
    seen = 0
    with precision(settings, data.label.device), evaluating(trained.model, trained.noise):
        for index, (rows,) in data.test_batches(min(BATCH, points)):
            x = data.x(index)
            for given in subsets(modalities):
                fill = completer(
                    trained.completion(given), trained.model, trained.noise, data.modalities, settings.iterations
                )
                latent = model.latent_mean(fill({name: x[name] for name in given}))
                batches["+".join(given)].append(latent[0].float().cpu().numpy())
            seen += rows
            if seen >= points:
                break
    means = {given: np.concatenate(parts)[:points] for given, parts in batches.items()}
    for names, subset in means.items():
        subset[~data.test_rows_with(names.split("+"))[0][:points]] = np.nan
    return means, data.test_labels()[0][:points]


def project(points: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Projects each subset's points `[N, Z]` to two dimensions, by a PCA of the last subset's: that of all modalities.

    Points of one dimension get a second coordinate of 0.
    """
    from sklearn.decomposition import PCA

    joint = list(points.values())[-1]
    pca = PCA(n_components=min(2, *joint.shape), random_state=0).fit(joint)
    projected = {}
    for given, subset in points.items():
        there = ~np.isnan(subset).any(1)
        projected[given] = np.full((len(subset), pca.n_components_), np.nan, np.float32)
        if there.any():
            projected[given][there] = pca.transform(subset[there])
    return {given: np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))) for given, flat in projected.items()}


@styled
def latent_figure(loaded: LoadedRun) -> "Figure":
    """The latent space's first two principal components, a panel for each subset of modalities, coloured by class."""
    from matplotlib.figure import Figure

    means, label = latents(loaded)
    projected = project(means)
    figure = Figure(figsize=(3.6 * len(projected), 3.9), layout="constrained")
    panels = figure.subplots(1, len(projected), sharex=True, sharey=True, squeeze=False).flat
    for panel, (given, points) in zip(panels, projected.items(), strict=True):
        for number, name in enumerate(loaded.data.classes):
            of_class = points[(label == number) & ~np.isnan(points).any(1)]
            if len(of_class):
                panel.scatter(
                    *of_class.T,
                    s=7,
                    color=colour(number),
                    marker=marker(number),
                    linewidths=0,
                    alpha=0.75,
                    rasterized=True,
                )
                _write_name(panel, np.median(of_class, axis=0), name)
        panel.set_title(f"given {given}")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(True)
    return figure


def _write_name(panel: "Axes", position: NDArray[np.float32], name: str) -> None:
    """Writes a class's name into a panel, in a box that hides the points behind it."""
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    x, y = map(float, position)
    panel.text(x, y, name, ha="center", va="center", fontsize=8, color=_LABEL_INK, bbox=box)
