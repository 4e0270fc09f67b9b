"""Pictures of a shard's rows as files beside a CSV: from the image store that made the features, or the values."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.features.origin import image_store_of
from pipeline.features.plans import NAMES, OWN_NAMES
from pipeline.images.store import ImageModality
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path
from pipeline.shards.shard import Shard
from pipeline.sources.questions import files_folder
from trainer.inference.image_shapes import image_shape
from trainer.inference.subsets import read_rows

_log = logging.getLogger("mmssl")
_SMALLEST = 112  # pixels of the longer side of what is written: an 8 x 4 digit would be a speck
Pixels = NDArray[np.uint8]


def write_thumbnails(path: Path, shard: Shard, rows: Sequence[int], root: Path) -> list[dict[str, str]]:
    """Writes the pictures of some training rows into the folder beside a CSV, where rows are pictures.

    Args:
        path: the CSV.
        root: the workspace, which may hold the image store that the features were made from.

    Returns:
        For each row, by modality, the file's name relative to the CSV's folder; nothing where there is no picture.

    Raises:
        StorageError: the disk is full or refuses.
    """
    files: list[dict[str, str]] = [{} for _ in rows]
    pictures = _of_store(shard, rows, root) or _of_values(shard, rows)
    folder = files_folder(path)
    for modality, by_row in pictures.items():
        present = shard.train.has(modality)
        for k, row in enumerate(rows):
            if row in by_row and present[row]:
                name = f"{row}-{modality}.png"
                with atomic_path(folder / name) as temporary:
                    _enlarged(by_row[row]).save(temporary, format="PNG", optimize=True)
                files[k][modality] = f"{folder.name}/{name}"
    return files


def _enlarged(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    factor = -(-_SMALLEST // max(image.size))
    if factor < 2:
        return image
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _of_values(shard: Shard, rows: Sequence[int]) -> dict[str, dict[int, Pixels]]:
    """The pictures of modalities whose values are pictures."""
    pictures: dict[str, dict[int, Pixels]] = {}
    order = np.unique(np.array(rows, np.int64))
    for modality in shard.modalities:
        shape = image_shape(shard, modality.name)
        if shape is None or not len(order):
            continue
        values = read_rows(shard.train, [modality.name], order)[modality.name]
        if modality.distribution != "bernoulli":  # not pixels: scaled to the range of what is shown
            values = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
        pixels = np.round(255 * values.clip(0, 1)).astype(np.uint8).reshape(len(order), *shape)
        pictures[modality.name] = {int(row): pixels[k] for k, row in enumerate(order)}
    return pictures


def _of_store(shard: Shard, rows: Sequence[int], root: Path) -> dict[str, dict[int, Pixels]]:
    """The pictures of the image store that a shard's features were made from; nothing if it is not there."""
    try:
        store = image_store_of(shard, root)
    except DataError as error:
        _log.warning("no pictures: %s", error.message)
        return {}
    if store is None:
        return {}
    number = {str(shard.train.ids[row]): int(row) for row in rows}
    order = [sample for sample in store.ids if sample in number]
    if len(order) < len(number):
        _log.warning("%s lacks some of the rows, so no pictures are written", store.folder)
        return {}
    return {
        name: {number[sample]: pixels for sample, pixels in zip(order, store.images(camera, order), strict=True)}
        for name, camera in _cameras(shard).items()
    }


def _cameras(shard: Shard) -> dict[str, ImageModality]:
    """Modality -> its camera."""
    known = {name: camera for names in (NAMES, OWN_NAMES) for camera, name in names.items()}
    return {m.name: known[m.name] for m in shard.modalities if m.name in known}
