"""One modality of one split, the unit of work: fine-tuned, extracted, and stored in its own HDF5 file.

The file holds `fc1`, float32 `[N, D]` (named after the paper's layer, whichever is taken), and `id [N]`, in the image
store's order. Its root's attributes are `recipe`, which identifies the result, `device`, which computed it, and
`digest`, the sha256 of the features. Data without splits have one unit per modality.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.features.backbones import PAPERS, Backbone, make_network, trunk
from pipeline.features.encoder import Encoder, encoder_path, origin_of
from pipeline.features.extraction import features
from pipeline.features.fine_tuning import FeatureSettings, fine_tune
from pipeline.features.noise import seed_of
from pipeline.features.weights import Weights
from pipeline.images.resize import Bytes
from pipeline.images.store import ImageModality, ImageStore
from pipeline.runtime import hdf5
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, NewerError
from pipeline.runtime.files import atomic_path, remove
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

    `keep` asks for the encoder too; `split` is None for data without splits.
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

    @property
    def name(self) -> str:
        return self.modality if self.split is None else f"split {self.split}, {self.modality}"

    @property
    def checkpoint(self) -> Path:
        return self.path.with_suffix(".checkpoint.safetensors")

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
    if unit.settings.epochs and unit.labelled:
        images = store.images(unit.modality, unit.labelled)
        _log.info("%s: fine-tuning on %d labelled images, %d epochs", unit.name, len(images), unit.settings.epochs)
        fine_tune(
            network,
            images,
            unit.labels,
            unit.settings,
            (unit.split, unit.modality),
            unit.checkpoint,
            unit.recipe,
            prepare=unit.backbone.input,
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
        blocks = _chosen(store.blocks(unit.modality), present)
        rows = features(layers, unit.backbone.input, blocks, unit.settings.extract_batch, stop=stop)
        device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        precision = "bfloat16" if device.type == "cuda" else "float32"
        _write_unit(unit, store.ids, _spread(rows, present), width, f"{device_name}, {precision}", reporter)
    remove(unit.checkpoint)


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
    stored = np.concatenate(list(read_rows(unit.path, mask)))
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
                    "and so does a smaller network (--backbone resnet18) or a GPU",
                    self.name,
                    minutes,
                )


def _write_unit(
    unit: ExtractionTask,
    ids: Sequence[str],
    rows: Iterable[Features],
    width: int,
    device: str,
    report: ProgressReporter,
) -> None:
    digest = hashlib.sha256()
    with (
        atomic_path(unit.path) as temporary,
        hdf5.creating(temporary) as (file, check_disk),
        hdf5.creating_rows(file, "fc1", (len(ids), width), np.dtype("<f4")) as target,
    ):
        start = 0
        for block in rows:
            target[start : start + len(block)] = block
            digest.update(np.ascontiguousarray(block, "<f4").data)
            check_disk()
            start += len(block)
            report(start, len(ids), "images")
        if start != len(ids):
            raise DataError(f"{unit.store}: holds {start} images, and its index names {len(ids)}")
        hdf5.write_rows(file, "id", np.array(ids, np.str_))
        for key, value in (("recipe", json.dumps(unit.recipe)), ("device", device), ("digest", digest.hexdigest())):
            hdf5.write_attribute(file, key, value)


def read_recipe(path: Path) -> dict[str, Any]:
    """Reads what identifies the result in a unit's file."""
    with hdf5.reading(path) as file:
        recipe: dict[str, Any] = hdf5.parse_json(path, "recipe", hdf5.attribute(path, file, "recipe"), dict)
    return recipe


def read_rows(path: Path, mask: NDArray[np.bool_]) -> Iterator[Features]:
    """Yields the features of the rows in a mask, in order, about 8 MiB at a time."""
    with hdf5.reading(path) as file:
        source = hdf5.dataset(path, file, "fc1")
        step = max(1, hdf5.BLOCK_BYTES // (4 * source.shape[1]))
        for start in range(0, source.shape[0], step):
            part = slice(start, start + step)
            if mask[part].any():
                yield hdf5.read(path, source, part)[mask[part]]


def is_complete(unit: ExtractionTask, ids: Sequence[str]) -> bool:
    """Whether a unit's file exists and passes verification; logs a warning if it is damaged.

    Raises:
        DataError: it holds the results of other settings.
    """
    path = unit.path
    if not path.exists():
        return False
    try:
        recipe = read_recipe(path)
        with hdf5.reading(path) as file:
            digest = hdf5.attribute(path, file, "digest")
            rows = hdf5.dataset(path, file, "fc1").shape[0]
            stored_ids = hdf5.read_text(path, hdf5.dataset(path, file, "id")).tolist()
        content = hashlib.sha256()
        for block in read_rows(path, np.ones(rows, np.bool_)):
            content.update(np.ascontiguousarray(block, "<f4").data)
        if content.hexdigest() != digest or rows != len(ids) or stored_ids != list(ids):
            raise DataError(f"{path}: its content does not match its digest")
    except NewerError:
        raise
    except DataError as error:
        _log.warning("%s; it is made again", error.message)
        return False
    check_recipe(path, recipe, unit.recipe)
    return True


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


def check_recipe(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises an error if a file holds the results of other settings.

    Raises:
        DataError: the recipes `found` and `wanted` differ; the message says how.
    """
    # The paper's network is not named, so that what was made before there were others stays valid.
    wanted_values, found_values = ({"backbone": PAPERS.name} | _flat(recipe) for recipe in (wanted, found))
    differences = [
        f"{key} {found_values.get(key)}, not {wanted_values.get(key)}"
        for key in (*wanted_values, *(key for key in found_values if key not in wanted_values))
        if found_values.get(key) != wanted_values.get(key)
    ]
    if differences:
        raise DataError(
            f"{path} holds results of other settings: {'; '.join(differences)}",
            "choose another name for these (--name), or move the old ones away",
        )


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested recipe as a flat dictionary; the names of nested values are joined by spaces."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        flat |= _flat(value, f"{prefix}{key} ") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
