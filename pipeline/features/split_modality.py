"""One modality of one split, the unit of work: fine-tuned, extracted, and stored in a file of features of its own.

Data without splits have one unit per modality.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.features import feature_file
from pipeline.features.backbones import PAPERS, Backbone, lower_layers, make_network, trunk, upper_layers
from pipeline.features.encoder import Encoder, encoder_path, origin_of
from pipeline.features.extraction import Given, features
from pipeline.features.fine_tuning import FeatureSettings, Prepare, fine_tune
from pipeline.features.noise import seed_of
from pipeline.features.weights import Weights
from pipeline.images.resize import Bytes
from pipeline.images.store import ImageModality, ImageStore
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, NewerError
from pipeline.runtime.files import remove
from pipeline.runtime.leases import lease
from pipeline.shards.schema import Features

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 30.0  # between progress messages in the log
_LONG_MINUTES = 10.0  # of fine-tuning that are worth a warning when it begins
_WARM_UP = 2  # steps before the speed of fine-tuning is measured, over as many again
_COMPARED = 32  # frames whose features are compared when an encoder is made afterwards
_CLOSE = 0.01  # relative difference of features between machines, or GPU and CPU; on one CPU it is 0

Progress = Callable[[str, int, int], None]  # what is counted, how many are done, how many in total


@dataclass(frozen=True)
class ExtractionTask:
    """Everything needed to compute one modality of one split; it is sent to a worker.

    `keep` asks for the encoder too; `split` is None for data without splits. `lower` is the file of what the layers
    below the fully connected ones give, where they are not tuned: all units that share it compute it once.
    """

    store: Path
    path: Path
    split: int | None
    modality: ImageModality
    classes: int
    labelled: tuple[str, ...]
    labels: NDArray[np.int64]
    settings: FeatureSettings
    weights: Weights
    device: str
    recipe: Mapping[str, Any]
    backbone: Backbone = PAPERS
    keep: bool = False
    lower: Path | None = None

    @property
    def name(self) -> str:
        return self.modality if self.split is None else f"split {self.split}, {self.modality}"

    @property
    def checkpoint(self) -> Path:
        return self.path.with_suffix(".checkpoint.safetensors")

    @property
    def lower_recipe(self) -> dict[str, Any]:
        """Identifies what the lower layers give; random ones are those of a seed and a split."""
        not_of_tuning = ("images", "weights", "backbone", "lacking", "modality")
        recipe = {key: self.recipe[key] for key in not_of_tuning if key in self.recipe}
        if self.weights.is_random:
            recipe |= {"seed": self.settings.seed, "split": self.split}
        return recipe | {"layers": "those below the fully connected ones"}

    @property
    def encoder(self) -> Path:
        return encoder_path(self.path.parent, self.split, self.modality)


def compute(unit: ExtractionTask, stop: Callable[[], None], progress: Progress | None = None) -> None:
    """Fine-tunes, extracts and writes one unit's file, and before it the encoder, if that is to be kept.

    If the features exist already, only the encoder is written, provided that it gives these features.

    Args:
        stop: called between steps; raises Interrupted if the work should stop.
        progress: called at every step; without it, the log reports progress every half minute.

    Raises:
        DataError, TrainingError, StorageError, Interrupted: as in `fine_tune`, `features` and `ImageStore`.
    """
    store = ImageStore.open(unit.store)
    device = choose_device(unit.device)
    network = make_network(unit.backbone, unit.weights, unit.classes, seed_of(unit.settings.seed, unit.split), device)
    reporter = ProgressReporter(unit.name, progress)
    source = _source(unit, store, network, device, stop, reporter)
    if unit.settings.epochs and unit.labelled:
        _log.info(
            "%s: fine-tuning on %d labelled images, %d epochs", unit.name, len(unit.labelled), unit.settings.epochs
        )
        fine_tune(
            source.tuned,
            source.labelled(),
            unit.labels,
            unit.settings,
            (unit.split, unit.modality),
            unit.checkpoint,
            unit.recipe,
            prepare=source.prepare,
            stop=stop,
            report=reporter,
        )
    layers, width = trunk(unit.backbone, network)
    if unit.keep:
        encoder = Encoder.of(
            layers, width, unit.backbone, unit.modality, store.index.settings, origin_of(dict(unit.recipe))
        )
        if unit.path.exists():
            _check_features(unit, store, encoder)
        encoder.save(unit.encoder)
        _log.info("%s: kept the encoder, %.2f GB", unit.name, unit.encoder.stat().st_size / 1e9)
    if not unit.path.exists():
        present = store.has(unit.modality)
        _log.info("%s: features of %d images", unit.name, int(present.sum()))
        taken = layers if unit.lower is None else upper_layers(network)[:2]
        rows = features(taken, source.prepare, source.blocks(), unit.settings.extract_batch, stop=stop)
        _write(unit.path, store, unit, rows, width, unit.recipe, device, reporter)
    remove(unit.checkpoint)


class _Source(NamedTuple):
    """What is left to compute, and of what.

    Attributes:
        tuned: the layers to fine-tune.
        prepare: makes what is given what they expect.
        labelled: what is given of the labelled images.
        blocks: what is given of all images that have the modality, in blocks.
    """

    tuned: nn.Module
    prepare: Prepare
    labelled: Callable[[], Given]
    blocks: Callable[[], Iterable[Given]]


def _source(
    unit: ExtractionTask,
    store: ImageStore,
    network: nn.Module,
    device: torch.device,
    stop: Callable[[], None],
    reporter: "ProgressReporter",
) -> _Source:
    """The network and the images; or its upper layers and what the lower ones give, computed once it is needed."""
    present = store.has(unit.modality)

    def images() -> Iterable[Given]:
        return _chosen(store.blocks(unit.modality), present)

    if unit.lower is None:
        return _Source(network, unit.backbone.input, lambda: store.images(unit.modality, unit.labelled), images)
    path, labelled = unit.lower, np.isin(np.array(store.ids), unit.labelled)

    @cache
    def lower() -> Path:
        with lease(path, wait=stop):
            if not feature_file.is_complete(path, store.ids, unit.lower_recipe):
                remove(path)
                _log.info("%s: what the layers below the fully connected ones give, once for all splits", unit.modality)
                layers, width = lower_layers(network)
                given = features(layers, unit.backbone.input, images(), unit.settings.extract_batch, stop=stop)
                _write(path, store, unit, given, width, unit.lower_recipe, device, reporter)
        return path

    return _Source(
        upper_layers(network),
        lambda given: given,
        lambda: np.concatenate(list(feature_file.read_rows(lower(), labelled))),
        lambda: feature_file.read_rows(lower(), present),
    )


def _write(
    path: Path,
    store: ImageStore,
    unit: ExtractionTask,
    rows: Iterable[Features],
    width: int,
    recipe: Mapping[str, Any],
    device: torch.device,
    reporter: "ProgressReporter",
) -> None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    precision = "bfloat16" if device.type == "cuda" else "float32"

    def report(done: int, total: int) -> None:
        reporter(done, total, "images")

    rows = _spread(rows, store.has(unit.modality))
    feature_file.write(path, store.ids, rows, width, recipe, f"{name}, {precision}", report)


def _chosen(blocks: Iterable[Bytes], rows: NDArray[np.bool_]) -> Iterator[Bytes]:
    """The images of some rows, `[N]`, in blocks."""
    start = 0
    for block in blocks:
        mask = rows[start : start + len(block)]
        start += len(block)
        if mask.any():
            yield block if mask.all() else block[mask]


def _spread(blocks: Iterable[Features], rows: NDArray[np.bool_]) -> Iterator[Features]:
    """Puts the features of some rows, in blocks, among zeros for the others, so that there are N."""
    places, done, start = np.flatnonzero(rows), 0, 0
    for block in blocks:
        end = int(places[done + len(block) - 1]) + 1
        spread = np.zeros((end - start, block.shape[1]), np.float32)
        spread[places[done : done + len(block)] - start] = block
        yield spread
        done, start, width = done + len(block), end, block.shape[1]
    if start < len(rows):
        yield np.zeros((len(rows) - start, width), np.float32)


def _check_features(unit: ExtractionTask, store: ImageStore, encoder: Encoder) -> None:
    """Checks that an encoder, made after the features, gives the same.

    Raises:
        DataError: it does not.
    """
    present = np.flatnonzero(store.has(unit.modality))
    chosen = present[np.unique(np.linspace(0, len(present) - 1, _COMPARED).astype(int))]
    mask = np.zeros(len(store.ids), np.bool_)
    mask[chosen] = True
    stored = np.concatenate(list(feature_file.read_rows(unit.path, mask)))
    given = encoder.prepared(store.images(unit.modality, [store.ids[k] for k in chosen]))
    difference = relative_difference(given, stored)
    if difference > _CLOSE:
        raise DataError(
            f"{unit.path}: the network, made again, gives other features (they differ by {difference:.1%}), "
            "so it cannot be kept",
            f"move {unit.path} and its shard away, and run the same command again: it makes them together",
        )


def relative_difference(given: Features, stored: Features) -> float:
    """The norm of the difference of two arrays over the norm of the second; inf if their shapes differ."""
    if given.shape != stored.shape:
        return float("inf")
    return float(np.linalg.norm(given - stored) / max(float(np.linalg.norm(stored)), 1e-30))


def is_close(given: Features, stored: Features) -> bool:
    """Whether two arrays of features are the same, but for what differs between machines."""
    return relative_difference(given, stored) <= _CLOSE


class ProgressReporter:
    """Reports the progress of a unit: every step to `progress`, or every half minute to the log.

    Where fine-tuning will take long, it says so after the first steps.
    """

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        self.name = name
        self.progress = progress
        self.what = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if self.progress is not None:
            self.progress(f"{self.name}: {what}", done, total)
        if what != self.what:
            self.what, self.first, self.begun, self.last = what, done, now, now
            return
        if what == "fine-tuning":
            self._estimate(done, total, now)
        if self.progress is None and now - self.last > _REPORT_SECONDS:
            self.last = now
            rate = (done - self.first) / (now - self.begun)
            _log.info(
                "%s: %s, %d of %d, %.2f/s, %.0f min left",
                self.name, what, done, total, rate, (total - done) / rate / 60,
            )  # fmt: skip

    def _estimate(self, done: int, total: int, now: float) -> None:
        if done == self.first + _WARM_UP:
            self.warm = now
        elif done == self.first + 2 * _WARM_UP:
            minutes = (now - self.warm) / _WARM_UP * (total - done) / 60
            if minutes > _LONG_MINUTES:
                _log.warning(
                    "%s: fine-tuning takes about %.0f min here; fewer --epochs take less (0: the weights as they are), "
                    "and so do --tune fc1, a smaller network (--backbone resnet18) or a GPU",
                    self.name,
                    minutes,
                )


def has_encoder(unit: ExtractionTask) -> bool:
    """Whether a unit's encoder exists and passes verification; logs a warning if it is damaged.

    Raises:
        DataError: it belongs to other settings.
    """
    if not unit.encoder.exists():
        return False
    try:
        encoder = Encoder.open(unit.encoder)
    except NewerError:
        raise
    except DataError as error:
        _log.warning("%s; it is made again", error.message)
        return False
    if encoder.origin != origin_of(dict(unit.recipe)):
        raise DataError(
            f"{unit.encoder} belongs to other settings than those asked for",
            "choose another name for these (--name), or move the old one away",
        )
    return True
