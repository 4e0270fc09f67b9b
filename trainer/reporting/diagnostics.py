"""Pictures of a finished run that need its model: its latent space, its confusions, how far its confidence is right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.evaluate import BATCH, evaluating
from trainer.evaluation.metrics import BINS, calibration_error, confidence_bin, subsets
from trainer.evaluation.missing_modalities import completer
from trainer.inference.loading import LoadedRun
from trainer.models.interface import Model
from trainer.reporting.plot_style import colour, marker, styled
from trainer.training.method import Predictions
from trainer.training.step import precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 1500  # shown of a latent space at most
_NUMBERED = 12  # classes whose shares are written into a confusion matrix
AllPredictions = dict[str, Predictions]  # by given modalities, `x+w`


def predict(loaded: LoadedRun) -> AllPredictions:
    """Predictions over the test set by given modalities, the others by the model's first completion."""
    modalities = [modality.name for modality in loaded.data.modalities]
    return {"+".join(given): loaded.trained.predictions(given) for given in subsets(modalities)}


def confusions(log_q: NDArray[np.float32], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """`[K, K]`: of the examples of each class (row), the share that is taken for each class; NaN where it has none."""
    classes = log_q.shape[1]
    counts = np.bincount(label * classes + log_q.argmax(-1), minlength=classes**2).reshape(classes, classes)
    total = counts.sum(1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


@styled
def confusion_figure(found: AllPredictions, classes: Sequence[str]) -> "Figure":
    """Confusion matrices, a panel for each subset of modalities; shares of the true class, in per cent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.1 * len(found), 4.6), layout="constrained")
    for panel, (given, (log_q, label)) in zip(
        figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True
    ):
        shares = confusions(log_q, label)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel.spines[:].set_visible(True)
        panel.set_title(f"given {given}")
        panel.set_xlabel("taken for")
        if len(classes) <= _NUMBERED:
            ticks = range(len(classes))
            panel.set_xticks(ticks, list(classes), rotation=90 if max(map(len, classes)) > 3 else 0)
            panel.set_yticks(ticks, list(classes))
            for row, column in np.argwhere(shares >= 0.005):
                ink = "white" if shares[row, column] > 0.55 else "#101418"
                text = f"{100 * shares[row, column]:.0f}"
                panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
    figure.axes[0].set_ylabel("true class")
    return figure


def reliability(
    log_q: NDArray[np.float32], label: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean confidence, accuracy and number of examples of each bin that is not empty, as `calibration_error` bins."""
    confidence = np.exp(log_q.max(-1).astype(np.float64))
    right = log_q.argmax(-1) == label
    which = confidence_bin(confidence, bins)
    count = np.bincount(which, minlength=bins)
    full = count > 0
    mean = np.bincount(which, confidence, minlength=bins)[full] / count[full]
    accuracy = np.bincount(which, right.astype(np.float64), minlength=bins)[full] / count[full]
    return mean, accuracy, count[full]


@styled
def reliability_figure(found: AllPredictions) -> "Figure":
    """Accuracy against confidence, a line for each subset of modalities; the larger a point, the more examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.6), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="#7d8590", linestyle="--", linewidth=1, label="confidence is right")
    for number, (given, (log_q, label)) in enumerate(found.items()):
        mean, accuracy, count = reliability(log_q, label)
        error = calibration_error(np.exp(log_q.max(-1).astype(np.float64)), log_q.argmax(-1) == label)
        panel.plot(mean, accuracy, color=colour(number), linewidth=1.2)
        sizes = 12 + 160 * count / count.sum()
        panel.scatter(
            mean,
            accuracy,
            s=sizes,
            color=colour(number),
            marker=marker(number),
            label=f"given {given}: ECE {error:.3f}",
        )
    panel.set_xlim(0, 1.06)
    panel.set_ylim(0, 1.06)
    panel.set_xlabel("confidence")
    panel.set_ylabel("accuracy")
    panel.grid(True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def latents(loaded: LoadedRun, points: int = POINTS) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """By given modalities, the latent variable's mean `[N, Z]` for the first test examples; and their labels `[N]`."""
    settings, data, trained = loaded.run.settings, loaded.data, loaded.generative
    model = cast(Model, trained.model)
    modalities = [modality.name for modality in data.modalities]
    found: dict[str, list[NDArray[np.float32]]] = {"+".join(given): [] for given in subsets(modalities)}
    seen = 0
    with precision(settings, data.label.device), evaluating(trained.model, trained.noise):
        for index, (rows,) in data.test_batches(min(BATCH, points)):
            x = data.x(index)
            for given in subsets(modalities):
                fill = completer(
                    trained.completion(given), trained.model, trained.noise, data.modalities, settings.iterations
                )
                latent = model.latent_mean(fill({name: x[name] for name in given}))
                found["+".join(given)].append(latent[0].float().cpu().numpy())
            seen += rows
            if seen >= points:
                break
    return {given: np.concatenate(parts)[:points] for given, parts in found.items()}, data.test_labels()[0][:points]


def project(points: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Points `[N, Z]` of each subset in two dimensions, by PCA of the last subset's, which is of all modalities."""
    from sklearn.decomposition import PCA

    last = list(points.values())[-1]
    pca = PCA(n_components=min(2, *last.shape), random_state=0).fit(last)
    projected = {given: pca.transform(own) for given, own in points.items()}
    return {given: np.pad(own, ((0, 0), (0, 2 - own.shape[1]))) for given, own in projected.items()}


@styled
def latent_figure(loaded: LoadedRun) -> "Figure":
    """The latent space's first two principal components, a panel for each subset of modalities, coloured by class."""
    from matplotlib.figure import Figure

    points, label = latents(loaded)
    flat = project(points)
    figure = Figure(figsize=(3.6 * len(flat), 3.9), layout="constrained")
    panels = figure.subplots(1, len(flat), sharex=True, sharey=True, squeeze=False).flat
    for panel, (given, own) in zip(panels, flat.items(), strict=True):
        for number, name in enumerate(loaded.data.classes):
            mine = own[label == number]
            if len(mine):
                panel.scatter(
                    *mine.T, s=7, color=colour(number), marker=marker(number), linewidths=0, alpha=0.75, rasterized=True
                )
                _name(panel, np.median(mine, axis=0), name)
        panel.set_title(f"given {given}")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(True)
    return figure


def _name(panel: "Axes", where: NDArray[np.float32], name: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    panel.text(float(where[0]), float(where[1]), name, ha="center", va="center", fontsize=8, color="#101418", bbox=box)
