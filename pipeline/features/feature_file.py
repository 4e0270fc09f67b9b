"""A file of features: what a network gives for every image, in one HDF5 file.

It holds `fc1`, float32 `[N, D]` (named after the paper's layer, whichever is taken), and `id [N]`, in the image store's
order. Its root's attributes are `recipe`, which identifies the result, `device`, which computed it, and `digest`, the
sha256 of the features.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features.backbones import PAPERS
from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError, NewerError
from pipeline.runtime.files import atomic_path
from pipeline.shards.schema import Features

_log = logging.getLogger(__name__)


def write(
    path: Path,
    ids: Sequence[str],
    rows: Iterable[Features],
    width: int,
    recipe: Mapping[str, Any],
    device: str,
    report: Callable[[int, int], None],
) -> None:
    """Writes the rows of all images, in blocks; there is no file under this name before all of it is written.

    Raises:
        DataError: there are not as many rows as ids.
        StorageError: the disk is full or refuses.
    """
    digest = hashlib.sha256()
    with (
        atomic_path(path) as temporary,
        hdf5.creating(temporary) as (file, check_disk),
        hdf5.creating_rows(file, "fc1", (len(ids), width), np.dtype("<f4")) as target,
    ):
        start = 0
        for block in rows:
            target[start : start + len(block)] = block
            digest.update(np.ascontiguousarray(block, "<f4").data)
            check_disk()
            start += len(block)
            report(start, len(ids))
        if start != len(ids):
            raise DataError(
                f"{path} cannot be written: the image store holds {start} images, and its index names {len(ids)}"
            )
        hdf5.write_rows(file, "id", np.array(ids, np.str_))
        for key, value in (("recipe", json.dumps(dict(recipe))), ("device", device), ("digest", digest.hexdigest())):
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


def is_complete(path: Path, ids: Sequence[str], wanted: Mapping[str, Any]) -> bool:
    """Whether a file of these images exists and passes verification; logs a warning if it is damaged.

    Args:
        wanted: the recipe that it must have.

    Raises:
        DataError: it holds the results of other settings.
    """
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
    check_recipe(path, recipe, wanted)
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
