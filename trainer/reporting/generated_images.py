"""Modalities that runs generate, as pictures below the true one (the paper's figure 5), or as numbers."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import UsageError
from pipeline.runtime.files import atomic_path
from pipeline.shards.shard import Shard
from trainer.inference.generation import GeneratedModality, generate
from trainer.inference.image_shapes import height_of_parts, image_shape
from trainer.inference.loading import CPU, load_runs
from trainer.models.registry import card, model_names
from trainer.reporting.panel_layout import shortened
from trainer.reporting.plot_style import check_format, letters_in, save, styled
from trainer.reporting.run_tables import grouped
from trainer.settings.describe import names
from trainer.training.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINT = np.array([0.18, 0.36, 0.6], np.float32)  # tint of the given half next to the generated one: dark and bluish
_GAP_SHARE = 9  # a gap between images is the image width divided by this
_GAPS_AFTER_TRUE = 3  # gaps between the true row and the generated ones
# Of the figure, in inches.
_MOSAIC_WIDTH = 5.6
_TITLE_HEIGHT = 0.4
_TITLE_LINE = 0.17  # each further line
_LEFT_MARGIN, _RIGHT_MARGIN = 0.25, 0.1
_FOOT_MARGIN = 0.2
_TITLE_SIZE = 10  # points
_ROW_LETTER = 0.075  # width of a letter of a row's label
_COLUMN_LETTER = 0.07  # of a column's label
_TURNED_LETTER = 0.082  # of one that is turned by 90 degrees, as long ones are
_LONGEST_LEVEL_LABEL = 3  # letters of a class that fit below an image without turning


def _images(generated: GeneratedModality, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[N, H, W, 3]` in [0, 1]: the target's values as images, with the given parts shown faintly next to them."""
    shard = generated.shard
    shape = image_shape(shard, generated.target)
    if shape is None:
        width = generated.true.shape[1]
        raise UsageError(
            f"the {width} values of {generated.target} in {shard.path} are not an image",
            "write them as numbers (--out made.npz), or give their shape in the provenance (docs/guide/report.md)",
        )
    image = _coloured(values, generated.true, shape)
    if height_of_parts(shard.modalities) is None or shape[0] == shape[1]:
        return image
    parts = []
    for m in shard.modalities:
        if m.name == generated.target:
            parts.append(image)
        elif m.name in generated.given:
            part = generated.given[m.name]
            parts.append(FAINT * _coloured(part, part, (shape[0], m.width // shape[0])).mean(-1, keepdims=True))
    return np.concatenate(parts, axis=2)


def _coloured(values: NDArray[np.float32], true: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values as images `[N, H, W, 3]` in [0, 1]."""
    if true.min() < 0 or true.max() > 1:  # not pixels: scaled to the range of the true values
        low, high = true.min(), true.max()
        values = (values - low) / (high - low)
    image = values.reshape(len(values), *shape)
    image = image if len(shape) == 3 else np.repeat(image[..., None], 3, axis=-1)
    return np.clip(image, 0, 1)


def panels(
    runs: Sequence[Run],
    device: torch.device = CPU,
    *,
    given: Sequence[str] = (),
    target: str | None = None,
    examples: int = 10,
    iterations: int | None = None,
) -> list[GeneratedModality]:
    """Generates with runs, a panel for each data set and direction, with the methods of all runs together.

    Of runs that differ only in seed or split the first one is taken.

    Args:
        given, target: the direction; without a target, every modality is generated from all the others.

    Raises:
        UsageError: as for `generate`.
        DataError: a run is not done, or its shard is missing or not the one it was trained on.
    """
    first_runs = [group[0] for group in grouped(runs)]
    labels = {id(run): label for run, label in zip(first_runs, _labels(first_runs), strict=True)}
    by_direction: dict[tuple[str, str], list[tuple[Run, GeneratedModality]]] = {}
    for loaded in load_runs(first_runs, device):
        modalities = [modality.name for modality in loaded.data.modalities]
        for goal in [target] if target is not None else modalities:
            generated = generate(loaded, given or [m for m in modalities if m != goal], goal, examples, iterations)
            same_direction = by_direction.setdefault((loaded.shard.digest, goal), [])
            if same_direction and set(same_direction[0][1].given) != set(generated.given):
                raise UsageError(
                    f"{loaded.run.folder} generates {goal} from other modalities than {same_direction[0][0].folder}"
                )
            same_direction.append((loaded.run, generated))
    order = model_names()
    return [
        replace(
            pairs[0][1],
            made={
                f"{labels[id(run)]} (iterative)" if completion == "iterative" else labels[id(run)]: values
                for run, generated in sorted(pairs, key=lambda pair: order.index(pair[0].settings.model))
                for completion, values in generated.made.items()
            },
        )
        for pairs in by_direction.values()
    ]


def _labels(runs: Sequence[Run]) -> list[str]:
    """The models' titles; if one occurs twice on the same data, also what tells its runs apart."""
    titles = [card(run.settings.model).title for run in runs]
    labels = list(titles)
    for title in set(titles):
        for data in {run.settings.digest for run in runs}:
            same = [k for k, run in enumerate(runs) if titles[k] == title and run.settings.digest == data]
            if len(same) > 1:
                for k, difference in zip(same, names([runs[k].settings for k in same])[1], strict=True):
                    labels[k] = f"{title}, {difference}" if difference else title
    return labels


def generation_figure(runs: Sequence[Run], device: torch.device = CPU, **options: Any) -> "Figure":
    """The paper's figure 5: the true modality on top, each method's output below it, one example per column.

    Halves of one image are shown side by side, the given one faintly.

    Args:
        options: as for `panels`.

    Raises:
        UsageError: as for `panels`, or the values are not an image.
        DataError: as for `panels`.
    """
    return draw_panels(panels(runs, device, **options))


@styled
def draw_panels(generated: Sequence[GeneratedModality]) -> "Figure":
    """Draws `generation_figure` from panels that were generated before."""
    from matplotlib.figure import Figure

    mosaics = [_mosaic(panel) for panel in generated]
    column_labels = [
        [shortened(_class(panel.shard, label)) for label in panel.shard.test.labels[panel.rows]] for panel in generated
    ]
    longest = max(len(name) for panel in generated for name in (f"true {panel.target}", *panel.made))
    left = _LEFT_MARGIN + _ROW_LETTER * longest
    feet = [_foot(max(map(len, classes))) for classes in column_labels]
    titles = [textwrap.fill(panel.title, letters_in(_MOSAIC_WIDTH, _TITLE_SIZE)) for panel in generated]
    above = [_TITLE_HEIGHT + _TITLE_LINE * title.count("\n") for title in titles]
    heights = [_MOSAIC_WIDTH * image.shape[0] / image.shape[1] for image, _, _ in mosaics]
    total = sum(heights) + sum(feet) + sum(above)
    figure = Figure(figsize=(left + _MOSAIC_WIDTH + _RIGHT_MARGIN, total))
    top = total
    for panel, title, classes, (image, rows, columns), space, height, foot in zip(
        generated, titles, column_labels, mosaics, above, heights, feet, strict=True
    ):
        top -= space + height
        axis = figure.add_axes(
            (left / figure.get_figwidth(), top / total, _MOSAIC_WIDTH / figure.get_figwidth(), height / total)
        )
        top -= foot
        axis.imshow(image, interpolation="nearest", aspect="auto")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set_title(title)
        axis.set_yticks(rows, [f"true {panel.target}", *panel.made])
        axis.set_xticks(columns, classes, rotation=90 if max(map(len, classes)) > _LONGEST_LEVEL_LABEL else 0)
    return figure


def _foot(longest: int) -> float:
    """The height of the columns' labels, of which the longest has so many letters."""
    return _FOOT_MARGIN + longest * (_COLUMN_LETTER if longest <= _LONGEST_LEVEL_LABEL else _TURNED_LETTER)


def _class(shard: Shard, label: int) -> str:
    return shard.classes[label] if label >= 0 else "?"


def _mosaic(generated: GeneratedModality) -> tuple[NDArray[np.float32], list[float], list[float]]:
    """RGBA `[H, W, 4]` with clear gaps between the images, and the centres of the rows and of the columns."""
    strips = [_images(generated, values) for values in (generated.true, *generated.made.values())]
    count, height, width, _ = strips[0].shape
    gap = max(1, width // _GAP_SHARE)
    after_true = _GAPS_AFTER_TRUE * gap
    total = len(strips) * height + (len(strips) - 2) * gap + after_true
    canvas = np.zeros((total, count * (width + gap) - gap, 4), np.float32)
    rows, top = [], 0
    for number, strip in enumerate(strips):
        for column, image in enumerate(strip):
            left = column * (width + gap)
            canvas[top : top + height, left : left + width, :3] = image
            canvas[top : top + height, left : left + width, 3] = 1
        rows.append(top + height / 2 - 0.5)
        top += height + (after_true if number == 0 else gap)
    return canvas, rows, [column * (width + gap) + width / 2 - 0.5 for column in range(count)]


def write_generated(runs: Sequence[Run], path: Path, device: torch.device = CPU, **options: Any) -> None:
    """Writes what runs generate, as a picture (.png, .svg, .pdf) or as numbers (.npz), atomically.

    The numbers are `true [N, D]`, `methods [M]` and `made [M, N, D]`, the given modalities as `from x [N, D]`,
    `label [N]` (-1 = unknown) and `id [N]`.

    Args:
        options: as for `panels`.

    Raises:
        UsageError: as for `generation_figure`; the path has another suffix; numbers of several directions or data sets.
        DataError, StorageError: as for `panels`; the file cannot be written.
    """
    if path.suffix.lower() != ".npz":
        check_format(path)  # before the work begins
        save(generation_figure(runs, device, **options), path)
        return
    generated = panels(runs, device, **options)
    if len(generated) > 1:
        raise UsageError(
            f"{path} cannot hold {' and '.join(panel.title for panel in generated)} at once",
            "choose one direction (--from, --to) and runs on one data set",
        )
    (panel,) = generated
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            true=panel.true,
            methods=np.array(list(panel.made)),
            made=np.stack(list(panel.made.values())),
            label=panel.shard.test.labels[panel.rows],
            id=panel.shard.test.ids[panel.rows],
            **{f"from {name}": values for name, values in panel.given.items()},
        )
