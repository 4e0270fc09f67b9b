"""What runs make of one modality, as pictures under the true one (the paper's figure 5), or as numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.files import atomic_path
from pipeline.shards.shard import Shard
from trainer.inference.generation import Made, generate
from trainer.inference.loading import CPU, load_runs
from trainer.models.registry import card, model_names
from trainer.reporting.plot_style import check_format, save, styled
from trainer.reporting.run_tables import grouped
from trainer.settings.describe import names
from trainer.training.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINT = np.array([0.18, 0.36, 0.6], np.float32)  # the given half beside the one that is made: dark, and bluish


def image_shape(shard: Shard, modality: str) -> tuple[int, ...] | None:
    """Height and width (and 3, for colours) of a modality's values as an image, or None where they are none.

    The shard's provenance says it under `shape`, `{"x": [28, 14]}`. Where it does not, values in [0, 1] are taken for a
    square image, or for that part of one which the modalities, put side by side, make up (the halves of a digit).
    """
    widths = {m.name: m.width for m in shard.modalities}
    said = shard.provenance.get("shape")
    if isinstance(said, Mapping) and modality in said:
        shape = said[modality]
        if (
            not isinstance(shape, list)
            or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))
            or not all(isinstance(side, int) and side > 0 for side in shape)
            or math.prod(shape) != widths[modality]
        ):
            raise DataError(
                f"{shard.path}: its provenance gives {modality} the shape {shape}, and it has {widths[modality]} values"
            )
        return tuple(shape)
    if any(m.distribution != "bernoulli" for m in shard.modalities if m.name == modality):
        return None
    width = widths[modality]
    if math.isqrt(width) ** 2 == width:
        return math.isqrt(width), math.isqrt(width)
    return (height, width // height) if (height := _height_of_parts(shard)) else None


def _height_of_parts(shard: Shard) -> int | None:
    """The height of the square image that the modalities are parts of, side by side, if they are."""
    total = sum(m.width for m in shard.modalities)
    side = math.isqrt(total)
    fits = side * side == total and all(m.width % side == 0 for m in shard.modalities)
    return side if fits and all(m.distribution == "bernoulli" for m in shard.modalities) else None


def _images(shard: Shard, made: Made, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[N, H, W, 3]` in [0, 1]: the target's values as images, with the given parts faintly beside them."""
    shape = image_shape(shard, made.target)
    if shape is None:
        width = made.true.shape[1]
        raise UsageError(
            f"the {width} values of {made.target} in {shard.path} are no image",
            "write them as numbers (--out made.npz), or let the shard's provenance say their shape (docs/report.md)",
        )
    image = _coloured(values, made.true, shape)
    if _height_of_parts(shard) is None or shape[0] == shape[1]:
        return image
    parts = []
    for m in shard.modalities:
        if m.name == made.target:
            parts.append(image)
        elif m.name in made.given:
            own = made.given[m.name]
            parts.append(FAINT * _coloured(own, own, (shape[0], m.width // shape[0])).mean(-1, keepdims=True))
    return np.concatenate(parts, axis=2)


def _coloured(values: NDArray[np.float32], true: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if true.min() < 0 or true.max() > 1:  # no pixels: from the smallest of the true values to the largest
        low, high = true.min(), true.max()
        values = (values - low) / (high - low)
    image = values.reshape(len(values), *shape)
    image = image if len(shape) == 3 else np.repeat(image[..., None], 3, axis=-1)
    return np.clip(image, 0, 1)


@dataclass(frozen=True)
class Panel:
    """One data set, one direction: what every run made of it, by the methods' names."""

    shard: Shard
    made: Made
    methods: Mapping[str, NDArray[np.float32]]

    @property
    def title(self) -> str:
        return f"{self.made.target} from {'+'.join(self.made.given)}, {self.shard.dataset}"


def panels(
    runs: Sequence[Run],
    device: torch.device = CPU,
    *,
    given: Sequence[str] = (),
    target: str | None = None,
    examples: int = 10,
    iterations: int | None = None,
) -> list[Panel]:
    """What runs make, a panel for each data set and direction; of runs that differ in seed alone the first one.

    Args:
        given, target: the direction; every modality from all the others where there is no target.

    Raises:
        UsageError: as `generate`.
        DataError: a run is not done, or its shard is missing or another one.
    """
    first = [group[0] for group in grouped(runs)]
    labels = {id(run): label for run, label in zip(first, _labels(first), strict=True)}
    found: dict[tuple[str, str], tuple[Shard, list[tuple[Run, Made]]]] = {}
    for subject in load_runs(first, device):
        seen = [modality.name for modality in subject.data.modalities]
        for goal in [target] if target is not None else seen:
            made = generate(subject, given or [m for m in seen if m != goal], goal, examples, iterations)
            _, before = found.setdefault((subject.shard.digest, goal), (subject.shard, []))
            if before and set(before[0][1].given) != set(made.given):
                raise UsageError(f"{subject.run.folder} makes {goal} from other modalities than {before[0][0].folder}")
            before.append((subject.run, made))
    order = model_names()
    return [
        Panel(
            shard,
            own[0][1],
            {
                f"{labels[id(run)]} (iterative)" if completion == "iterative" else labels[id(run)]: values
                for run, made in sorted(own, key=lambda pair: order.index(pair[0].settings.model))
                for completion, values in made.made.items()
            },
        )
        for (shard, own) in found.values()
    ]


def _labels(runs: Sequence[Run]) -> list[str]:
    """The models' names; where one comes twice on the same data, with what tells its runs apart."""
    titles = [card(run.settings.model).title for run in runs]
    labels = list(titles)
    for title in set(titles):
        for data in {run.settings.digest for run in runs}:
            same = [k for k, run in enumerate(runs) if titles[k] == title and run.settings.digest == data]
            if len(same) > 1:
                for k, beside in zip(same, names([runs[k].settings for k in same])[1], strict=True):
                    labels[k] = f"{title}, {beside}" if beside else title
    return labels


def generation_figure(runs: Sequence[Run], device: torch.device = CPU, **options: Any) -> "Figure":
    """The paper's figure 5: the true modality on top, under it what each method makes of it, an example a column.

    Halves of one image are shown side by side, the given one faintly.

    Args:
        options: of `panels`.

    Raises:
        UsageError: as `panels`, or the values have no form as an image.
        DataError: as `panels`.
    """
    return draw_panels(panels(runs, device, **options))


@styled
def draw_panels(shown: Sequence[Panel]) -> "Figure":
    """`generation_figure`, of what was made before."""
    from matplotlib.figure import Figure

    mosaics = [_mosaic(panel) for panel in shown]
    classes = [[_class(panel, label) for label in panel.shard.test.labels[panel.made.rows]] for panel in shown]
    longest = max(len(name) for panel in shown for name in (f"true {panel.made.target}", *panel.methods))
    left, width, above = 0.25 + 0.075 * longest, 5.6, 0.4  # inches
    below = [0.2 + 0.07 * max(map(len, own)) for own in classes]
    heights = [width * image.shape[0] / image.shape[1] for image, _, _ in mosaics]
    total = sum(heights) + sum(below) + above * len(shown)
    figure = Figure(figsize=(left + width + 0.1, total))
    top = total
    for panel, own, (image, rows, columns), height, foot in zip(shown, classes, mosaics, heights, below, strict=True):
        top -= above + height
        axis = figure.add_axes(
            (left / figure.get_figwidth(), top / total, width / figure.get_figwidth(), height / total)
        )
        top -= foot
        axis.imshow(image, interpolation="nearest", aspect="auto")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set_title(panel.title)
        axis.set_yticks(rows, [f"true {panel.made.target}", *panel.methods])
        axis.set_xticks(columns, own, rotation=90 if max(map(len, own)) > 3 else 0)
    return figure


def _class(panel: Panel, label: int) -> str:
    return panel.shard.classes[label] if label >= 0 else "?"


def _mosaic(panel: Panel) -> tuple[NDArray[np.float32], list[float], list[float]]:
    """RGBA `[H, W, 4]` with clear gaps between the images; the rows' and the columns' middles."""
    strips = [_images(panel.shard, panel.made, values) for values in (panel.made.true, *panel.methods.values())]
    count, height, width, _ = strips[0].shape
    gap = max(1, width // 9)
    after_true = 3 * gap
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
    """What runs make, as a picture (.png, .svg, .pdf) or as numbers (.npz), whole or not at all.

    The numbers: `true [N, D]`, `methods [M]` and `made [M, N, D]`, the given modalities as `from x [N, D]`, `label [N]`
    (-1 = unknown) and `id [N]`.

    Args:
        options: of `panels`.

    Raises:
        UsageError: as `generation_figure`; the path's suffix is another one; numbers of several data sets.
        DataError, StorageError: as `panels`; the file cannot be written.
    """
    if path.suffix.lower() != ".npz":
        check_format(path)  # before the work
        save(generation_figure(runs, device, **options), path)
        return
    shown = panels(runs, device, **options)
    if len(shown) > 1:
        raise UsageError(
            f"{path} cannot hold {' and '.join(panel.title for panel in shown)} at once", "one direction, one data set"
        )
    (panel,) = shown
    rows = panel.made.rows
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            true=panel.made.true,
            methods=np.array(list(panel.methods)),
            made=np.stack(list(panel.methods.values())),
            label=panel.shard.test.labels[rows],
            id=panel.shard.test.ids[rows],
            **{f"from {name}": values for name, values in panel.made.given.items()},
        )
