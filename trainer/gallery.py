"""The pictures of a page: of what the runs' folders hold, and of what their models do."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from pipeline.errors import MmsslError
from trainer.drawing import data_uri, render
from trainer.figures import alpha_figure, curves_figure, labels_figure, splits_figure
from trainer.generation import Subject, load_subjects
from trainer.models import Model
from trainer.mosaics import draw_panels, image_shape, panels
from trainer.portraits import confusion_figure, latent_figure, predict, reliability_figure
from trainer.report import MEANS, TITLES
from trainer.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """An image with all that is said about it; `uri` holds the image itself."""

    title: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Closer:
    """What one run's model does, in pictures; `means` is what stands in for a missing modality."""

    run: str
    title: str
    means: str
    pictures: tuple[Picture, ...]


def pictures(name: str, runs: Sequence[Run], done: Sequence[Run]) -> Iterator[Picture]:
    """What needs no model."""
    trained = [run for run in runs if (rows := run.metrics()) and any(key.startswith("accuracy ") for key in rows[0])]
    if trained:
        yield _picture(
            f"Training on {name}",
            f"Test accuracy per epoch of {runs_in_words(len(trained))} on {name}, for every subset of modalities",
            curves_figure(trained),
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


def _vary(runs: Sequence[Run], setting: str) -> set[str]:
    """The models that were trained with more than one value of a setting, all else being equal."""
    values: dict[tuple[str, str], set[object]] = {}
    for run in runs:
        rest = run.settings.model_dump_json(exclude={"seed", "split", "digest", setting})
        values.setdefault((run.settings.model, rest), set()).add(getattr(run.settings, setting))
    return {model for (model, _), own in values.items() if len(own) > 1}


def closer_look(
    done: Sequence[Run], device: torch.device
) -> tuple[tuple[Closer, ...], tuple[str, ...], tuple[Picture, ...]]:
    """What the models do, in pictures: of the first run of each model; what could not be drawn; generated images."""
    first: dict[str, Run] = {}
    for run in done:
        first.setdefault(run.settings.model, run)
    closer, missing, able = [], [], []
    for run in first.values():
        try:
            (subject,) = load_subjects([run], device)
        except MmsslError as error:
            _log.warning("%s", error.message)
            missing.append(error.message)
            continue
        modalities = [modality.name for modality in subject.data.modalities]
        means = (
            MEANS[cast(Model, subject.model).completions[0]] if len(modalities) > 1 else "nothing, it sees one alone"
        )
        closer.append(Closer(run.folder.name, TITLES[run.settings.model], means, tuple(_portraits(subject))))
        images = all(image_shape(subject.shard, modality) is not None for modality in modalities)
        if len(modalities) > 1 and images:
            able.append(run)
    generated = []
    if able:
        generated.append(
            _picture(
                "One modality made from the other",
                "Rows of images: the true modality on top, under it what each model makes of it from the other; "
                "one test example of each class a column",
                draw_panels(panels(able, device)),
            )
        )
    return tuple(closer), tuple(missing), tuple(generated)


def _portraits(subject: Subject) -> Iterator[Picture]:
    found = predict(subject)
    accuracy = ", ".join(
        f"{100 * float((log_q.argmax(-1) == label).mean()):.1f} % given {given}"
        for given, (log_q, label) in found.items()
    )
    title = TITLES[subject.run.settings.model]
    yield _picture(
        "Latent space", f"Two principal components of {title}'s latent space, by class", latent_figure(subject)
    )
    yield _picture(
        "Confusions (% of the true class)",
        f"Confusion matrices of {title}; right are {accuracy}",
        confusion_figure(found, subject.data.classes),
    )
    yield _picture("Reliability", f"Accuracy against confidence of {title}", reliability_figure(found))


def _picture(title: str, alt: str, figure: "Figure") -> Picture:
    return Picture(title, alt, data_uri(render(figure, "svg"), ".svg"))


def runs_in_words(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"
