"""The pictures of a page: of what the runs' folders hold, and of what their models do."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from pipeline.runtime.errors import MmsslError
from trainer.evaluation.metrics import COMPLETION_TITLES
from trainer.inference.loading import LoadedRun, load_run
from trainer.models.registry import card
from trainer.reporting.diagnostics import (
    AllPredictions,
    confusion_figure,
    latent_figure,
    predict,
    reliability_figure,
)
from trainer.reporting.generated_images import draw_panels, image_shape, panels
from trainer.reporting.plot_style import data_uri, render
from trainer.reporting.plots import alpha_figure, curves_figure, labels_figure, splits_figure
from trainer.reporting.run_tables import grouped
from trainer.training.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)
MOST_LINES = 8  # in one picture of curves; of more, each model has its own


@dataclass(frozen=True)
class Picture:
    """An image with all that is said about it; `uri` holds the image itself."""

    title: str
    alt: str
    uri: str


# What a model makes of one modality from the other: images, values that are none, nothing (it sees one modality alone,
# or is a classifier without a latent space).
Makes = Literal["images", "numbers", "no other", "no latent"]


@dataclass(frozen=True)
class ModelFigures:
    """What one run's model does, in pictures; `about` says what it makes of a missing modality, what is not shown."""

    run: str
    title: str
    about: str
    makes: Makes
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ModelsSection:
    """What the models of some runs do.

    Attributes:
        closer: the first run of each model, in pictures.
        generated: one modality made from the other.
        apart: what is not among the generated images and cannot be, a sentence each.
        missing: what could not be drawn, and why.
    """

    closer: tuple[ModelFigures, ...] = ()
    generated: tuple[Picture, ...] = ()
    apart: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def pictures(name: str, runs: Sequence[Run], done: Sequence[Run]) -> Iterator[Picture]:
    """What needs no model."""
    trained = [run for run in runs if (rows := run.metrics()) and any(key.startswith("accuracy ") for key in rows[0])]
    for turns, title in (("epochs", "Training"), ("rounds", "Co-training")):
        for model, own in _parts([run for run in trained if run.settings.turns == turns]):
            yield _picture(
                f"{title}{f' of {model}' if model else ''} on {name}",
                f"Test accuracy per {turns[:-1]}, {runs_in_words(len(own))} on {name}, for every subset of modalities",
                curves_figure(own),
            )
    if _vary(trained, "alpha"):
        own = [run for run in trained if run.settings.model in _vary(trained, "alpha")]
        yield _picture(
            "The classifier's weight alpha",
            f"Test accuracy per epoch given all modalities, a line for each alpha, on {name}",
            alpha_figure(own),
        )
    if _vary(done, "labels"):
        own = [run for run in done if run.settings.model in _vary(done, "labels")]
        yield _picture(
            "Accuracy against labels",
            f"Test accuracy against the number of labelled examples, for every subset of modalities, on {name}",
            labels_figure(own),
        )
    split = [run for run in done if run.settings.split is not None]
    if len({run.settings.split for run in split}) > 1:
        yield _picture(
            "Accuracy per split",
            f"Test accuracy on each split, given each modality alone, on {name}",
            splits_figure(split),
        )


def _parts(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """All runs together, or those of each model, named, where their lines would be too many for one picture."""
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
        rest = run.settings.model_dump_json(exclude={"seed", "split", "digest", setting})
        values.setdefault((run.settings.model, rest), set()).add(getattr(run.settings, setting))
    return {model for (model, _), own in values.items() if len(own) > 1}


def draw_models(done: Sequence[Run], device: torch.device) -> ModelsSection:
    """What the models of finished runs do, in pictures: of one run for each model, on whichever modalities it sees.

    It is the first of those whose alpha and beta are 1, where there are any.
    """
    first: dict[tuple[str, tuple[str, ...]], Run] = {}
    for run in sorted(done, key=lambda run: (run.settings.alpha != 1, run.settings.beta != 1)):
        first.setdefault((run.settings.model, run.settings.modalities), run)
    order = {run.folder: number for number, run in enumerate(done)}
    closer: list[ModelFigures] = []
    missing: list[str] = []
    able: list[Run] = []
    for run in sorted(first.values(), key=lambda run: order[run.folder]):
        try:
            closer.append(_model_figures(run, device))
        except MmsslError as error:
            _log.warning("%s", error.message)
            missing.append(error.message)
            continue
        if closer[-1].makes == "images":
            able.append(run)
    generated, failed = _generated(able, device)
    return ModelsSection(tuple(closer), generated, tuple(_apart(closer)), (*missing, *failed))


def _apart(closer: Sequence[ModelFigures]) -> Iterator[str]:
    """Why some models are not among the generated images, a sentence for each reason."""
    titles = {makes: [one.title for one in closer if one.makes == makes] for makes in get_args(Makes)}
    if titles["no latent"]:
        yield (
            f"{_listed(titles['no latent'])}: classifiers alone, without a generative model; so there is no latent "
            "space to show, and nothing that they generate."
        )
    if titles["no other"]:
        yield f"{_listed(titles['no other'])}: trained on one modality alone, from which no other can be made."
    if titles["numbers"]:
        yield (
            "The values of these modalities are no images, so what a model makes of one from the other is not shown; "
            "mmssl generate --out made.npz writes it as numbers."
        )


def _title(run: Run) -> str:
    return " on ".join(filter(None, (card(run.settings.model).title, "+".join(run.settings.modalities))))


def _model_figures(run: Run, device: torch.device) -> ModelFigures:
    loaded, about = load_run(run, device), card(run.settings.model)
    modalities = [modality.name for modality in loaded.data.modalities]
    makes: Makes
    if not about.is_generative:
        makes = "no latent"
        text = "Each modality has a classifier of its own. There is no latent space to show, and nothing is generated."
    elif len(modalities) == 1:
        makes, text = "no other", "It sees one modality alone."
    else:
        text = f"In the place of a missing modality: {COMPLETION_TITLES[about.completions[0]]}."
        images = all(image_shape(loaded.shard, modality) is not None for modality in modalities)
        makes = "images" if images else "numbers"
    title = _title(run)
    return ModelFigures(run.folder.name, title, text, makes, tuple(_drawn(loaded, title)))


def _generated(runs: Sequence[Run], device: torch.device) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    if not runs:
        return (), ()
    try:
        figure = draw_panels(panels(runs, device))
    except MmsslError as error:
        _log.warning("%s", error.message)
        return (), (error.message,)
    said = (
        "Rows of images: the true modality on top, under it what each model makes of it from the other; one test "
        "example of each class a column"
    )
    return (_picture("One modality made from the other", said, figure),), ()


def _drawn(loaded: LoadedRun, title: str) -> Iterator[Picture]:
    if card(loaded.run.settings.model).is_generative:
        yield _picture(
            "Latent space", f"Two principal components of {title}'s latent space, by class", latent_figure(loaded)
        )
    yield from _predicted(predict(loaded), loaded.data.classes, title)


def _predicted(found: AllPredictions, classes: Sequence[str], title: str) -> Iterator[Picture]:
    accuracy = ", ".join(
        f"{100 * float((log_q.argmax(-1) == label).mean()):.1f} % given {given}"
        for given, (log_q, label) in found.items()
    )
    yield _picture(
        "Confusions (% of the true class)",
        f"Confusion matrices of {title}; right are {accuracy}",
        confusion_figure(found, classes),
    )
    yield _picture("Reliability", f"Accuracy against confidence of {title}", reliability_figure(found))


def _picture(title: str, alt: str, figure: "Figure") -> Picture:
    return Picture(title, alt, data_uri(render(figure, "svg"), ".svg"))


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def runs_in_words(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"
