"""`mmssl preprocess ...` and `mmssl extract`: from raw data to the shards that training reads."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from commands import messages, progress
from commands.app import app, preprocess
from commands.options import (
    COMPUTE,
    DATA,
    MODEL,
    OUTPUT,
    SCHEDULE,
    WORKSPACE,
    Device,
    DeviceOption,
    Encoding,
    ImageModality,
    Jobs,
    RgbdData,
    RgbdDataSet,
    Root,
    Scheduler,
    Size,
    Taken,
    Trials,
    Tuned,
    names,
    numbers,
)
from pipeline.runtime.errors import UsageError

_log = logging.getLogger("mmssl")
Rotation = Annotated[float, typer.Option(help="Largest angle by which x is rotated, in degrees.", rich_help_panel=DATA)]
NoiseLevel = Annotated[
    float,
    typer.Option(help="Standard deviation of w's Gaussian noise, for pixels in 0..1.", rich_help_panel=DATA),
]
PairSeed = Annotated[int, typer.Option(help="Seed of every pair's angle and noise.", rich_help_panel=DATA)]


def _digits(name: str, root: Path, **options: float) -> None:
    from pipeline.datasets.digits import build

    messages.say_path(build(name, root / "shards", root / "raw", **options))  # type: ignore[arg-type]


@preprocess.command("hm-mnist")
def hm_mnist(root: Root = WORKSPACE) -> None:
    """Pair the left half of each MNIST digit (x) with its right half (w)."""
    _digits("hm-mnist", root)


@preprocess.command("nm-mnist")
def nm_mnist(rotation: Rotation = 45.0, noise: NoiseLevel = 0.5, seed: PairSeed = 0, root: Root = WORKSPACE) -> None:
    """Pair each MNIST digit, rotated (x), with the same digit under noise (w)."""
    _digits("nm-mnist", root, rotation=rotation, noise=noise, seed=seed)


@preprocess.command("hm-digits")
def hm_digits(root: Root = WORKSPACE) -> None:
    """Pair the halves of scikit-learn's 1,797 bundled digits, without a download."""
    _digits("hm-digits", root)


@preprocess.command("nm-digits")
def nm_digits(rotation: Rotation = 45.0, noise: NoiseLevel = 0.5, seed: PairSeed = 0, root: Root = WORKSPACE) -> None:
    """Pair scikit-learn's bundled digits, rotated and noisy, without a download."""
    _digits("nm-digits", root, rotation=rotation, noise=noise, seed=seed)


@preprocess.command("mfeat")
def preprocess_mfeat(root: Root = WORKSPACE) -> None:
    """Standardise the six views of UCI's 2,000 handwritten digits (Multiple Features)."""
    from pipeline.datasets.mfeat import build

    messages.say_path(build(root / "shards", root / "raw"))


@preprocess.command("rgbd")
def preprocess_rgbd(
    data: RgbdData = RgbdDataSet.rgbd,
    depth_encoding: Encoding = None,
    size: Size = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Treat an unusable frame as an error.", rich_help_panel=DATA),
    ] = False,
    frames: Annotated[
        Taken,
        typer.Option(
            help="Frames to take: those of the evaluation set (every fifth of videos 1, 2 and 4), or all.",
            rich_help_panel=DATA,
        ),
    ] = Taken.evaluation,
    trials: Annotated[
        Trials,
        typer.Option(
            help="Splits: the official trials or those of the data's testinstance_ids.txt, or one object after the "
            "other left out.",
            rich_help_panel=DATA,
        ),
    ] = Trials.official,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of worker processes.", show_default="one per core", rich_help_panel=COMPUTE),
    ] = None,
    scheduler: Scheduler = None,
    preview: Annotated[
        Path | None, typer.Option(help="PNG file to show some frames in, raw and processed.", rich_help_panel=OUTPUT)
    ] = None,
    root: Root = WORKSPACE,
) -> None:
    """Make square images from Washington RGB-D frames; `mmssl extract` continues from them."""
    from commands.settings_from_options import settings_of
    from pipeline.images import preprocess as stage
    from pipeline.images.store import ImageSettings

    settings = settings_of(ImageSettings, size=size, depth_encoding=depth_encoding)
    if preview is not None:
        stage.preview(data, root, settings, preview, taken=frames.value)
        _log.info("wrote %s", preview)
    with progress.counting("objects") as watch:
        store = stage.preprocess(
            data, root, settings,
            workers=workers, scheduler=scheduler, strict=strict, taken=frames.value, trials=trials.value,
            progress=watch,
        )  # fmt: skip
    messages.say(f"{store.folder.resolve()}: {len(store.ids)} frames")


@app.command()
def extract(
    data: Annotated[
        str,
        typer.Option(
            help="RGB-D data set (rgbd, rgbd-sample), or the --name that `mmssl data import` gave to pictures.",
            rich_help_panel=DATA,
        ),
    ] = RgbdDataSet.rgbd,
    split: Annotated[
        str | None,
        typer.Option(
            help="Splits to extract: 0..9 or 0,3,7; imported pictures have none.",
            show_default="0..9",
            rich_help_panel=DATA,
        ),
    ] = None,
    modality: Annotated[
        str, typer.Option(help="Modalities to extract: rgb, depth, or both.", rich_help_panel=DATA)
    ] = ImageModality.both,
    depth_encoding: Encoding = None,
    size: Size = None,
    labelled: Annotated[
        float | None,
        typer.Option(
            help="Share of the training images that keep their label.",
            show_default="0.05, the paper's; of imported pictures, all",
            rich_help_panel=DATA,
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="The network's weights: imagenet, random, or a file (.pth, .safetensors).", rich_help_panel=MODEL
        ),
    ] = "imagenet",
    backbone: Annotated[
        str,
        typer.Option(
            help="Network: any classifier of torchvision that ends in a linear layer, such as resnet50, convnext_tiny, "
            "vit_b_16.",
            rich_help_panel=MODEL,
        ),
    ] = "vgg16",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Fine-tuning epochs; 0 for none.",
            show_default="200, the paper's; for imported pictures, 0",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Fine-tuning batch size.", show_default="32", rich_help_panel=SCHEDULE)
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Fine-tuning learning rate.", show_default="1e-5, the paper's", rich_help_panel=SCHEDULE),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the labelled images and of fine-tuning.", show_default="0", rich_help_panel=SCHEDULE
        ),
    ] = None,
    tune: Annotated[
        Tuned | None,
        typer.Option(
            help="Fine-tune the whole network, or VGG's fully connected layers alone: then what the others give is "
            "computed once for all splits, in 100 kB per image and modality.",
            show_default="all, the paper's",
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the shards.",
            show_default="the data set's, with what differs from the defaults",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    keep_encoder: Annotated[
        bool | None,
        typer.Option(
            "--keep-encoder/--no-keep-encoder",
            help="Keep the networks, which new pictures need: 0.47 GB per split and modality with vgg16. For features "
            "that exist, they are made again.",
            show_default="kept for imported pictures only",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    root: Root = WORKSPACE,
) -> None:
    """Fine-tune VGG16 (or another network) on the labelled images, and write its features to shards.

    The same command resumes after an interruption, and does nothing once everything is done.
    """
    from commands.settings_from_options import settings_of
    from pipeline.datasets.locations import DATASETS
    from pipeline.features import extract as stage
    from pipeline.features.fine_tuning import FeatureSettings
    from pipeline.images.store import ImageSettings

    with progress.extracting() as watch:
        paths = stage.extract(
            data,
            root,
            numbers(split if split is not None or data not in DATASETS else "0..9", int, "--split"),
            settings_of(ImageSettings, size=size, depth_encoding=depth_encoding),
            settings_of(
                FeatureSettings,
                labelled=labelled,
                seed=seed,
                epochs=epochs,
                learning_rate=lr,
                batch_size=batch_size,
                tune=None if tune is None else tune.value,
            ),
            weights=weights,
            backbone=backbone,
            keep_encoder=keep_encoder,
            modalities=_cameras(modality),
            name=name,
            device=device,
            scheduler=scheduler,
            jobs=jobs,
            progress=watch,
        )
    for path in paths:
        messages.say_path(path)


def _cameras(text: str) -> list[str]:
    """Parses `rgb`, `depth`, `rgb,depth` or `both`.

    Raises:
        UsageError: there is no such modality.
    """
    known = [ImageModality.rgb.value, ImageModality.depth.value]
    given = names(text)
    for name in given:
        if name not in (*known, ImageModality.both):
            raise UsageError(f"there is no modality '{name}'", f"modalities: {', '.join(known)}, or both")
    return known if ImageModality.both in given else given
