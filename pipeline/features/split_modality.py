"""One modality of one split, the unit of work: fine-tuned, extracted, and stored in its own HDF5 file.

The file holds `fc1`, float32 `[N, 4096]`, and `id [N]`, in the image store's order. Its root's attributes are `recipe`,
which identifies the result, `device`, which computed it, and `digest`, the sha256 of the features.
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

from pipeline.features import vgg
from pipeline.features.extraction import fc1
from pipeline.features.fine_tuning import FeatureSettings, fine_tune
from pipeline.features.vgg import Weights
from pipeline.images.store import ImageModality, ImageStore
from pipeline.runtime import hdf5
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path, remove
from pipeline.shards.schema import Features

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 30.0  # between progress messages in the log

Progress = Callable[[str, int, int], None]  # what is counted, how many are done, how many in total


@dataclass(frozen=True)
class ExtractionTask:
    """Everything needed to compute one modality of one split; it is sent to a worker."""

    store: Path
    path: Path
    split: int
    modality: ImageModality
    classes: int
    labelled: tuple[str, ...]
    labels: NDArray[np.int64]
    settings: FeatureSettings
    weights: Weights
    device: str
    recipe: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"split {self.split}, {self.modality}"

    @property
    def checkpoint(self) -> Path:
        return self.path.with_suffix(".checkpoint.safetensors")


def compute(unit: ExtractionTask, stop: Callable[[], None], progress: Progress | None = None) -> None:
    """Fine-tunes, extracts and writes one unit's file.

    Args:
        stop: called between steps; raises Interrupted if the work should stop.
        progress: called at every step; without it, the log reports progress every half minute.

    Raises:
        DataError, TrainingError, StorageError, Interrupted: as in `fine_tune`, `fc1` and `ImageStore`.
    """
    store = ImageStore.open(unit.store)
    device = choose_device(unit.device)
    network = vgg.make_network(unit.weights, unit.classes, vgg.seed_of(unit.settings.seed, unit.split), device)
    reporter = ProgressReporter(unit.name, progress)
    if unit.settings.epochs:
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
            stop=stop,
            report=reporter,
        )
    _log.info("%s: features of %d images", unit.name, len(store.ids))
    rows = fc1(network, store.blocks(unit.modality), unit.settings.extract_batch, stop=stop)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    precision = "bfloat16" if device.type == "cuda" else "float32"
    width = int(network.classifier[0].out_features)
    _write_unit(unit, store.ids, rows, width, f"{device_name}, {precision}", reporter)
    remove(unit.checkpoint)


class ProgressReporter:
    """Reports the progress of a unit: every step to `progress`, or every half minute to the log."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        self.name = name
        self.progress = progress
        self.what = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        if self.progress is not None:
            self.progress(f"{self.name}: {what}", done, total)
            return
        now = time.monotonic()
        if what != self.what:
            self.what, self.first, self.begun, self.last = what, done, now, now
        elif now - self.last > _REPORT_SECONDS:
            self.last = now
            rate = (done - self.first) / (now - self.begun)
            _log.info(
                "%s: %s, %d of %d, %.2f/s, %.0f min left",
                self.name, what, done, total, rate, (total - done) / rate / 60,
            )  # fmt: skip


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
    except DataError as error:
        _log.warning("%s; it is made again", error.message)
        return False
    check_recipe(path, recipe, unit.recipe)
    return True


def check_recipe(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises an error if a file holds the results of other settings.

    Raises:
        DataError: the recipes `found` and `wanted` differ; the message says how.
    """
    wanted_values, found_values = _flat(wanted), _flat(found)
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
