"""One modality made from another by a finished run, as pictures (the paper's figure 5) or as numbers.

What the model has against missing modalities (`Model.completions`) infers its latent variables from the given ones, at
the posterior's mean, and what is shown is the mean of the target's distribution:

    JMVAE, SS-HMVAE and their -kl   p(w|a) at the mean of q(a|x), q(a|x,0), or of iterative sampling's q(a|x,w) (eq. 11)
    SS-MVAE, M2                     p(w|z,y) at the mean of q(z|x,0,y), for the most probable y of q(y|x,0)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import DataError, UsageError
from pipeline.files import atomic_path
from pipeline.shards import Shard
from trainer.data import Data, load
from trainer.drawing import check_format, save, styled
from trainer.evaluation import completion, evaluating
from trainer.labels import one_hot
from trainer.models import LatentModel, Model
from trainer.models.m2 import M2
from trainer.models.sdgm import SDGM
from trainer.models.ssmvae import SSMVAE
from trainer.noise import Noise
from trainer.report import TITLES, grouped, names
from trainer.runner import load_model, shard_of
from trainer.runs import Run
from trainer.step import precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINT = 0.4  # how bright the given half is shown beside the one that is made
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """A finished run, loaded: its shard, and its model as a stack of one."""

    run: Run
    shard: Shard
    data: Data
    model: nn.Module
    noise: Noise


@dataclass(frozen=True)
class Made:
    """One modality of N test examples, and what a run's methods make of it from others.

    Attributes:
        given: the modalities seen, `[N, D]` each.
        target: the name of the one that is made.
        true: as it is, `[N, D]`.
        made: by method, `[N, D]`.
        rows: in the shard's test set, `[N]`.
    """

    given: Mapping[str, NDArray[np.float32]]
    target: str
    true: NDArray[np.float32]
    made: Mapping[str, NDArray[np.float32]]
    rows: NDArray[np.int64]


def figure5(runs: Sequence[Run], path: Path, device: torch.device = _CPU) -> None:
    """Each modality from the others, by each method: `generation_figure` in every direction, written to a file.

    The path ends in .svg, .png or .pdf.
    """
    save(generation_figure(runs, device), path)


def load_subjects(runs: Sequence[Run], device: torch.device = _CPU) -> Iterator[Subject]:
    """The runs, loaded one at a time, in an order that reads data as rarely as may be.

    Raises:
        DataError: a run is not done, or its shard is missing or another one.
    """
    shard: Shard | None = None
    data: Data | None = None
    last = ""
    for run in sorted(runs, key=_data_key):
        if shard is None or shard.digest != run.settings.digest:
            shard = shard_of(run)
        if data is None or last != _data_key(run):
            data, last = load([run.settings], [shard], device), _data_key(run)
        yield Subject(run, shard, data, *load_model(run, data, device))


def _data_key(run: Run) -> str:
    """Equal for runs that see the same examples."""
    settings = run.settings
    seen = (settings.modalities, settings.labels, settings.seed, settings.learns_labels)
    return f"{settings.data} {settings.digest} {seen}"


def generate(
    subject: Subject, given: Sequence[str], target: str, examples: int = 10, iterations: int | None = None
) -> Made:
    """One modality of some test examples from others, by every means that the model has.

    Args:
        given: the modalities that the model sees; all others are missing.
        target: the one to make.
        examples: how many, one of each class in turn (`choose_examples`).
        iterations: of iterative sampling; the run's own where None.

    Raises:
        UsageError: the model cannot generate, or has no such modality.
    """
    known = [modality.name for modality in subject.data.modalities]
    model, settings = cast(Model, subject.model), subject.run.settings
    if len(known) < 2 or isinstance(model, SDGM):
        raise UsageError(
            f"{subject.run.folder} has seen {known[0]} alone, so it makes nothing else from it",
            "train on two modalities or more",
        )
    for name in (*given, target):
        if name not in known:
            raise UsageError(f"{subject.run.folder} has seen no modality '{name}'", f"modalities: {', '.join(known)}")
    if target in given or not given or len(set(given)) < len(given):
        raise UsageError(f"{target} from {', '.join(given) or 'nothing'}: choose another modality to make it from")
    rows = choose_examples(subject.shard.test.labels, examples)
    features = {name: subject.shard.test.features(name)[rows] for name in (*given, target)}
    device = subject.data.label.device
    seen = {name: torch.from_numpy(features[name])[None].to(device) for name in given}  # [1, N, D]
    made = {}
    with precision(settings, device), evaluating(subject.model, subject.noise):
        for means in model.completions:
            fill = completion(
                means, subject.model, subject.noise, subject.data.modalities, iterations or settings.iterations
            )
            made[means] = reconstruct(subject.model, fill(dict(seen)), target)[0].float().cpu().numpy()
    return Made({name: features[name] for name in given}, target, features[target], made, rows)


def choose_examples(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Rows of a test set with these labels: the first of each class, then the second of each, and so on.

    Raises:
        UsageError: fewer than one is asked for.
    """
    if count < 1:
        raise UsageError(f"{count} examples are none", "ask for one or more: --examples 10")
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    turn = np.arange(len(labels)) - np.searchsorted(ordered, ordered)  # how many of its class come before
    unknown = ordered < 0
    return order[np.lexsort((ordered, turn, unknown))][:count]


def infer(model: nn.Module, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """The latent variable's posterior mean `[R, B, Z]`, and the label `[R, B, K]` that it is inferred with, if any.

    Args:
        x: what `completion` made of the given modalities.
    """
    if isinstance(model, SSMVAE | M2):
        log_q = model.classify(x)
        y = one_hot(log_q.argmax(-1), log_q.shape[-1])
        q_z = model.q_z(**x, y=y) if isinstance(model, SSMVAE) else model.q_z(x=model.concatenate(x), y=y)
        return q_z.mean, y
    if isinstance(model, SDGM):
        return model.q_a(**x).mean, None
    return cast(LatentModel, model).encode(x).mean, None


def reconstruct(model: nn.Module, x: Mapping[str, Tensor], target: str) -> Tensor:
    """The mean `[R, B, D]` of the target modality, given what x tells of the latent variables."""
    latent, y = infer(model, x)
    if isinstance(model, SSMVAE):
        return model.p_x[target](z=latent, y=y).mean
    if isinstance(model, M2):
        joint = model.p_x(z=latent, y=y).mean
        widths = [x[name].shape[-1] for name in model.modalities]
        return torch.split(joint, widths, dim=-1)[list(model.modalities).index(target)]
    return cast(LatentModel, model).decode(latent, target).mean


# --- images ----------------------------------------------------------------------------------------------------------


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
            parts.append(FAINT * _coloured(own, own, (shape[0], m.width // shape[0])))
    return np.concatenate(parts, axis=2)


def _coloured(values: NDArray[np.float32], true: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if true.min() < 0 or true.max() > 1:  # no pixels: from the smallest of the true values to the largest
        low, high = true.min(), true.max()
        values = (values - low) / (high - low)
    image = values.reshape(len(values), *shape)
    image = image if len(shape) == 3 else np.repeat(image[..., None], 3, axis=-1)
    return np.clip(image, 0, 1)


# --- several runs ----------------------------------------------------------------------------------------------------


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
    device: torch.device = _CPU,
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
    for subject in load_subjects(first, device):
        seen = [modality.name for modality in subject.data.modalities]
        for goal in [target] if target is not None else seen:
            made = generate(subject, given or [m for m in seen if m != goal], goal, examples, iterations)
            _, before = found.setdefault((subject.shard.digest, goal), (subject.shard, []))
            if before and set(before[0][1].given) != set(made.given):
                raise UsageError(f"{subject.run.folder} makes {goal} from other modalities than {before[0][0].folder}")
            before.append((subject.run, made))
    order = list(TITLES)
    return [
        Panel(
            shard,
            own[0][1],
            {
                f"{labels[id(run)]} (iterative)" if means == "iterative" else labels[id(run)]: values
                for run, made in sorted(own, key=lambda pair: order.index(pair[0].settings.model))
                for means, values in made.made.items()
            },
        )
        for (shard, own) in found.values()
    ]


def _labels(runs: Sequence[Run]) -> list[str]:
    """The models' names; where one comes twice on the same data, with what tells its runs apart."""
    titles = [TITLES[run.settings.model] for run in runs]
    labels = list(titles)
    for title in set(titles):
        for data in {run.settings.digest for run in runs}:
            same = [k for k, run in enumerate(runs) if titles[k] == title and run.settings.digest == data]
            if len(same) > 1:
                for k, beside in zip(same, names([runs[k].settings for k in same])[1], strict=True):
                    labels[k] = f"{title}, {beside}" if beside else title
    return labels


def generation_figure(runs: Sequence[Run], device: torch.device = _CPU, **options: Any) -> "Figure":
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


def write_generated(runs: Sequence[Run], path: Path, device: torch.device = _CPU, **options: Any) -> None:
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
