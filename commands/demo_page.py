"""What the demo's page shows: some test images, what the cameras saw of them, and the models' answers."""

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from commands.demo_examples import Chosen, JudgedSplit, first_of_each_class, where_covering_matters
from pipeline.features.plans import NAMES
from pipeline.images.resize import Bytes
from pipeline.images.store import MODALITIES, ImageStore
from trainer.inference.answers import Answers, answers
from trainer.inference.loading import LoadedRun, load_runs
from trainer.reporting.camera_page import Answer, CameraImage, CameraPage, Classifier, Example, Gallery, View
from trainer.reporting.diagnostics import predict
from trainer.reporting.plot_style import data_uri
from trainer.reporting.render import pivot
from trainer.reporting.run_tables import ResultTable, grouped
from trainer.training.run_folder import Run

_RGB, _DEPTH = NAMES["rgb"], NAMES["depth"]
_BOTH = f"{_RGB}+{_DEPTH}"
_VIEWS = (
    View("both cameras", None),
    View("depth covered", MODALITIES.index("depth")),
    View("RGB covered", MODALITIES.index("rgb")),
)
_GIVEN = (_BOTH, _RGB, _DEPTH)  # by view
_LEGEND = (
    ("zeros", "in place of what the covered camera would have seen, the model gets zeros"),
    ("iterative sampling", "the same model guesses the covered camera’s features from the other’s, and gets those"),
    ("encoders", "the model has learned an encoder for each camera, and uses the one that sees"),
    ("recommended", "settings of ours, sized to the data; they go beyond the paper"),
)


def demo_page(runs: Sequence[Run], results: ResultTable, store: ImageStore, device: torch.device) -> CameraPage:
    """The page of the demo's finished runs: of several settings, each on the same splits.

    Raises:
        DataError: a run, its shard or an image cannot be read.
    """
    loaded = {model.run.folder: model for model in load_runs(runs, device)}
    models = [[loaded[run.folder] for run in group] for group in grouped(runs)]  # by setting, then by split
    splits = [_judged(of_split) for of_split in zip(*models, strict=True)]
    objects = {sample: name for name, entry in store.index.objects.items() for sample in entry.ids}
    first = first_of_each_class(splits[0].labels)
    shown = {objects[splits[0].ids[choice.row]] for choice in first}
    turned = list(where_covering_matters(splits, _BOTH, {"depth": _RGB, "RGB": _DEPTH}, objects, shown))
    classes = [name.replace("_", " ") for name in models[0][0].shard.classes]
    examples = _examples((*first, *turned), models, splits, classes, store)
    count = f"{len(splits)} split{'s' if len(splits) > 1 else ''}"
    return CameraPage(
        title="When a camera fails",
        summary="Objects that no model has seen before, in front of an RGB and a depth camera: what each model takes "
        "them for with both cameras, and with one of the two covered.",
        caveat="The features come from a VGG16 with random weights, and the objects are rendered: the numbers show how "
        "the models work, and say nothing of the paper’s data.",
        cameras=("RGB", "depth"),
        views=_VIEWS,
        classifiers=tuple(_classifiers(results)),
        measured=f"{results.common}; objects that no model has seen, {len(classes)} categories, mean over {count}",
        chance=100 / len(classes),
        legend=_LEGEND,
        galleries=(
            Gallery(
                "One object of each category",
                f"The first test image of each category in split {models[0][0].run.settings.split}: chosen by that "
                "rule alone, whatever the models say.",
                examples[: len(first)],
            ),
            Gallery(
                "Where covering a camera changes the answer",
                "Chosen for what the models say, so this is no fair sample. For each camera: the first test image "
                "where covering it makes one model lose the right answer while another keeps it, and the first where "
                f"it turns a wrong answer right. The {count} are searched in order, no object is shown twice, and a "
                "model with two lines is judged by its first.",
                examples[len(first) :],
            ),
        ),
    )


def _judged(models: Sequence[LoadedRun]) -> JudgedSplit:
    """What several models on one split are right about."""
    predictions = [predict(model) for model in models]
    test, (_, labels) = models[0].shard.test, predictions[0][_BOTH]
    right = {given: np.stack([by_given[given][0].argmax(-1) == labels for by_given in predictions]) for given in _GIVEN}
    return JudgedSplit([str(sample) for sample in test.ids[test.labels >= 0]], labels, right)


def _classifiers(results: ResultTable) -> Iterator[Classifier]:
    given, lines = pivot(results)
    for setting, completion, _, cells in lines:
        accuracy = {cameras: row.accuracy for cameras, row in zip(given, cells, strict=True)}
        yield Classifier(setting, completion, tuple(accuracy[cameras] for cameras in _GIVEN))


def _examples(
    chosen: Sequence[Chosen],
    models: Sequence[Sequence[LoadedRun]],
    splits: Sequence[JudgedSplit],
    classes: Sequence[str],
    store: ImageStore,
) -> tuple[Example, ...]:
    """The chosen images with the answers of every model of their split."""
    answer_lines: dict[Chosen, list[tuple[Answer, ...]]] = {choice: [] for choice in chosen}
    for split, judged in enumerate(splits):
        of_split = [choice for choice in chosen if choice.split == split]
        rows = np.array([choice.row for choice in of_split], np.int64)
        for model in models if of_split else ():
            model_answers = answers(model[split], rows)
            for place, choice in enumerate(of_split):
                answer_lines[choice] += _lines(model_answers, place, int(judged.labels[choice.row]), classes)
    images = _images(store, [splits[choice.split].ids[choice.row] for choice in chosen])
    return tuple(
        _example(choice, splits[choice.split], classes, images, tuple(lines)) for choice, lines in answer_lines.items()
    )


def _lines(by_given: Answers, place: int, label: int, classes: Sequence[str]) -> Iterator[tuple[Answer, ...]]:
    """One model's answers to one image, a line for each of its completions."""
    for completion in by_given[_RGB]:
        line = [by_given[given]["none" if given == _BOTH else completion][place] for given in _GIVEN]
        yield tuple(
            Answer(classes[most], float(np.exp(log_q[most])), most == label)
            for log_q, most in ((log_q, int(log_q.argmax())) for log_q in line)
        )


def _example(
    choice: Chosen,
    split: JudgedSplit,
    classes: Sequence[str],
    images: Mapping[str, tuple[str, str]],
    lines: tuple[tuple[Answer, ...], ...],
) -> Example:
    sample, label = split.ids[choice.row], classes[split.labels[choice.row]]
    rgb, depth = images[sample]
    seen = (
        CameraImage(rgb, f"{label}, as the RGB camera sees it"),
        CameraImage(depth, f"{label}, as the depth camera sees it: near is red, far is blue"),
    )
    return Example(sample, label, seen, lines, choice.reason)


def _images(store: ImageStore, samples: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The addresses of the RGB and the depth image of some samples."""
    order = [sample for sample in store.ids if sample in samples]
    rgb, depth = ([_address(pixels) for pixels in store.images(modality, order)] for modality in MODALITIES)
    return dict(zip(order, zip(rgb, depth, strict=True), strict=True))


def _address(pixels: Bytes) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", optimize=True)
    return data_uri(content.getvalue(), ".png")
