"""The pictures of a page: those drawn from the runs' folders, and those that need the trained models."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from pipeline.runtime.errors import Interrupted, MmsslError
from trainer.evaluation.metrics import COMPLETION_TITLES
from trainer.evaluation.subsets import MOST_WITH_ALL_SHOWN, every_modality, subset_title
from trainer.inference.image_shapes import image_shape
from trainer.inference.loading import LoadedRun, load_run
from trainer.models.registry import card
from trainer.reporting.diagnostics import (
    AllPredictions,
    confusion_figure,
    latent_figure,
    predict,
    reliability_figure,
)
from trainer.reporting.generated_images import draw_panels, panels
from trainer.reporting.plot_style import data_uri, render
from trainer.reporting.plots import alpha_figure, curves_figure, labels_figure, splits_figure
from trainer.reporting.run_tables import REPLICA_SETTINGS, grouped
from trainer.training.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)
MOST_LINES = 8  # in one picture of curves; if there would be more, each model gets its own picture


@dataclass(frozen=True)
class Picture:
    """An image with its title and alternative text; `uri` holds the image itself."""

    title: str
    alt: str
    uri: str


# What a model generates from one modality: images, values that are not an image, or nothing (because it sees only one
# modality, or because it is a classifier without a latent space).
Makes = Literal["images", "numbers", "no other", "no latent"]


@dataclass(frozen=True)
class ModelFigures:
    """Pictures of one run's model; `about` says how it completes missing modalities, or what cannot be shown."""

    run: str
    title: str
    about: str
    makes: Makes
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ModelsSection:
    """Pictures of the models of some runs.

    Attributes:
        closer: for each model, the pictures of one of its runs.
        generated: one modality generated from the others.
        apart: why some models are not among the generated images, one sentence per reason.
        missing: what could not be drawn, and why.
    """

    closer: tuple[ModelFigures, ...] = ()
    generated: tuple[Picture, ...] = ()
    apart: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def pictures(name: str, runs: Sequence[Run], done: Sequence[Run]) -> Iterator[Picture]:
    """The pictures that do not need a model."""
    trained = [run for run in runs if (rows := run.metrics()) and any(key.startswith("accuracy ") for key in rows[0])]
    for turns, title in (("epochs", "Training"), ("rounds", "Co-training")):
        for model, shown in _split_curves([run for run in trained if run.settings.turns == turns]):
            yield _picture(
                f"{title}{f' of {model}' if model else ''} on {name}",
                f"Test accuracy per {turns[:-1]}, {runs_in_words(len(shown))} on {name}, for {_which(shown)}",
                curves_figure(shown),
            )
    if _vary(trained, "alpha"):
        shown = [run for run in trained if run.settings.model in _vary(trained, "alpha")]
        yield _picture(
            "The classifier's weight alpha",
            f"Test accuracy per epoch given all modalities, a line for each alpha, on {name}",
            alpha_figure(shown),
        )
    if _vary(done, "labels"):
        shown = [run for run in done if run.settings.model in _vary(done, "labels")]
        yield _picture(
            "Accuracy against labels",
            f"Test accuracy against the number of labelled examples, for {_which(shown)}, on {name}",
            labels_figure(shown),
        )
    on_splits = [run for run in done if run.settings.split is not None]
    if len({run.settings.split for run in on_splits}) > 1:
        yield _picture(
            "Accuracy per split",
            f"Test accuracy on each split, given each modality alone, on {name}",
            splits_figure(on_splits),
        )


def _which(runs: Sequence[Run]) -> str:
    """The subsets of modalities that are shown of some runs, in words."""
    measured = (key.removeprefix("accuracy ") for run in runs for row in run.metrics()[:1] for key in row)
    many = any(given.count("+") >= MOST_WITH_ALL_SHOWN for given in measured)
    return "each modality alone, all but one, and all" if many else "every subset of modalities"


def _split_curves(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """All runs together, or by model title if one picture would have too many lines."""
    models: dict[str, list[Run]] = {}
    for run in runs:
        models.setdefault(card(run.settings.model).title, []).append(run)
    if len(grouped(runs)) > MOST_LINES and len(models) > 1:
        return list(models.items())
    return [("", list(runs))] if runs else []


def _vary(runs: Sequence[Run], setting: str) -> set[str]:
    """The models that were trained with more than one value of a setting, all else being equal."""
    values: dict[tuple[str, str], set[object]] = {}
    for run in runs:
        other_settings = run.settings.model_dump_json(exclude=REPLICA_SETTINGS | {setting})
        values.setdefault((run.settings.model, other_settings), set()).add(getattr(run.settings, setting))
    return {model for (model, _), different in values.items() if len(different) > 1}


def draw_models(done: Sequence[Run], device: torch.device) -> ModelsSection:
    """Draws one finished run of each model, for each choice of modalities.

    It is the first run whose alpha and beta are 1, if there is one.
    """
    representatives: dict[tuple[str, tuple[str, ...]], Run] = {}
    for run in sorted(done, key=lambda run: (run.settings.alpha != 1, run.settings.beta != 1)):
        representatives.setdefault((run.settings.model, run.settings.modalities), run)
    order = {run.folder: number for number, run in enumerate(done)}
    closer: list[ModelFigures] = []
    missing: list[str] = []
    generating: list[Run] = []
    for run in sorted(representatives.values(), key=lambda run: order[run.folder]):
        try:
            closer.append(_model_figures(run, device))
        except Interrupted:
            raise
        except MmsslError as error:
            _log.warning("%s", error.message)
            missing.append(error.message)
            continue
        if closer[-1].makes == "images":
            generating.append(run)
    generated, failed = _generated(generating, device)
    return ModelsSection(tuple(closer), generated, tuple(_apart(closer)), (*missing, *failed))


def _apart(closer: Sequence[ModelFigures]) -> Iterator[str]:
    """Why some models are not among the generated images, one sentence per reason."""
    titles = {makes: [figures.title for figures in closer if figures.makes == makes] for makes in get_args(Makes)}
    if titles["no latent"]:
        yield (
            f"{_listed(titles['no latent'])}: classifiers without a generative model, so there is no latent space to "
            "show and nothing to generate."
        )
    if titles["no other"]:
        yield f"{_listed(titles['no other'])}: trained on a single modality, so there is no other to generate."
    if titles["numbers"]:
        yield (
            "The values of these modalities are not images, so what the models generate is not shown; "
            "mmssl generate --out made.npz writes it as numbers."
        )


def _title(run: Run) -> str:
    """The model's title, with the modalities if the run saw a choice of them: `SDGM on x`."""
    return " on ".join(filter(None, (card(run.settings.model).title, "+".join(run.settings.modalities))))


def _model_figures(run: Run, device: torch.device) -> ModelFigures:
    loaded, model_card = load_run(run, device), card(run.settings.model)
    modalities = [modality.name for modality in loaded.data.modalities]
    makes: Makes
    if not model_card.is_generative:
        makes = "no latent"
        about = "Each modality has its own classifier; there is no latent space to show and nothing to generate."
    elif len(modalities) == 1:
        makes, about = "no other", "It sees a single modality."
    else:
        about = f"Missing modalities are completed by: {COMPLETION_TITLES[model_card.completions[0]]}."
        images = all(image_shape(loaded.shard, modality) is not None for modality in modalities)
        makes = "images" if images else "numbers"
    title = _title(run)
    return ModelFigures(run.folder.name, title, about, makes, tuple(_model_pictures(loaded, title)))


def _generated(runs: Sequence[Run], device: torch.device) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """The picture of what the runs generate, and why it could not be drawn; at most one of either."""
    if not runs:
        return (), ()
    try:
        figure = draw_panels(panels(runs, device))
    except Interrupted:
        raise
    except MmsslError as error:
        _log.warning("%s", error.message)
        return (), (error.message,)
    alt = (
        "Rows of images: the true modality on top, below it what each model generates from the other; one column per "
        "test example, one example of each class"
    )
    return (_picture("One modality generated from the other", alt, figure),), ()


def _model_pictures(loaded: LoadedRun, title: str) -> Iterator[Picture]:
    if card(loaded.run.settings.model).is_generative:
        yield _picture(
            "Latent space", f"Two principal components of {title}'s latent space, by class", latent_figure(loaded)
        )
    yield from _prediction_pictures(predict(loaded), loaded.data.classes, title)


def _prediction_pictures(predictions: AllPredictions, classes: Sequence[str], title: str) -> Iterator[Picture]:
    every = every_modality(predictions)
    accuracy = ", ".join(
        f"{100 * float((log_q.argmax(-1) == label).mean()):.1f} % given {subset_title(given, every)}"
        for given, (log_q, label) in predictions.items()
    )
    yield _picture(
        "Confusion matrices (% of the true class)",
        f"Confusion matrices of {title}; accuracy {accuracy}",
        confusion_figure(predictions, classes),
    )
    yield _picture("Reliability", f"Accuracy against confidence of {title}", reliability_figure(predictions))


def _picture(title: str, alt: str, figure: "Figure") -> Picture:
    return Picture(title, alt, data_uri(render(figure, "svg"), ".svg"))


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def runs_in_words(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"
