"""Writing a shard, whole or not at all."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path
from pipeline.shards.schema import (
    SCHEMA,
    Features,
    Hasher,
    Header,
    Modality,
    Scaling,
    header_fault,
    needs_schema_2,
    row_fault,
    stored_name,
    value_fault,
)
from pipeline.shards.shard import _HINT, Part, Shard, empty_part


@dataclass
class PartData:
    """The content of one part, for `write_shard`.

    Attributes:
        features: for each modality the whole array `[N, D]`, or an iterable of its consecutive blocks `[n, D]`. Each
            iterable is consumed once: train before test, in the order of the modalities.
        labels: integers `[N]`, a class index or -1.
        ids: strings `[N]`.
        labelled: booleans `[N]`, for train only.
        present: booleans `[N]` by modality, for modalities that some rows lack; such a row's features are zeros.
        groups: strings `[N]`, what a split must not cut through; an empty one is a row of no group.
    """

    features: Mapping[str, NDArray[Any] | Iterable[NDArray[Any]]]
    labels: NDArray[Any] | Sequence[int]
    ids: NDArray[Any] | Sequence[str]
    labelled: NDArray[np.bool_] | Sequence[bool] | None = None
    present: Mapping[str, NDArray[np.bool_] | Sequence[bool]] | None = None
    groups: NDArray[Any] | Sequence[str] | None = None


def write_shard(
    path: Path | str,
    *,
    dataset: str,
    classes: Sequence[str],
    modalities: Sequence[Modality],
    train: PartData,
    test: PartData | None = None,
    split: int | None = None,
    provenance: Mapping[str, Any] | None = None,
    preset: str | None = None,
    scaling: Mapping[str, Scaling] | None = None,
    encoders: Mapping[str, Mapping[str, Any]] | None = None,
) -> Shard:
    """Writes a shard, whole or not at all, and opens it. It has schema 1 if that can hold it, otherwise schema 2.

    `encoders` are an attribute of either schema, so that adding them to a shard changes neither it nor its digest.

    Args:
        test: None for data that has no test part.
        scaling: by modality, how the features were scaled; new inputs are scaled in the same way.
        encoders: by modality, the recipe of the network that made the features.
        preset: the name of the settings that suit the data; if None, `mmssl train` chooses by the distributions.

    Raises:
        DataError: the content would not be a valid shard.
        StorageError: the disk is full or refuses; nothing is left behind.
    """
    path = Path(path)
    header = Header(
        dataset,
        split,
        tuple(classes),
        tuple(modalities),
        None,
        dict(provenance or {}),
        preset,
        dict(scaling or {}),
        dict(encoders or {}),
    )
    fault = header_fault(header, SCHEMA)
    if fault:
        raise DataError(f"{path}: {fault}", _HINT)
    contents = {"train": train} | ({} if test is None else {"test": test})
    parts = {name: _as_part(path, name, data, header.modalities) for name, data in contents.items()}
    parts.setdefault("test", empty_part(path, "test", header.modalities))
    rows = {name: part.row_data for name, part in parts.items()}
    newer = header.scaling or needs_schema_2(header.modalities) or any(part.needs_schema_2 for part in rows.values())
    schema = SCHEMA if newer else 1
    fault = header_fault(header, schema) or row_fault(header, schema, rows)
    if fault:
        raise DataError(f"{path}: {fault}", _HINT)
    with atomic_path(path) as temporary, hdf5.creating(temporary) as (file, check_disk):
        hasher = Hasher(header, schema)
        for name, part in parts.items():
            if part.rows:
                group = file.create_group(name)
                for modality in header.modalities:
                    shape = (part.rows, modality.width)
                    source = _checked_blocks(path, part, modality, contents[name].features[modality.name])
                    with hdf5.creating_rows(
                        group, stored_name(modality.name, schema), shape, np.dtype("<f4")
                    ) as target:
                        for start, block in source:
                            target[start : start + len(block)] = block
                            hasher.update(block)
                            check_disk()
                _write_rows(group, part)
            hasher.rows(part.row_data)
            check_disk()
        _write_header(file, header, schema, hasher.hexdigest())
    return Shard.open(path)


def _as_part(path: Path, name: str, data: PartData, modalities: tuple[Modality, ...]) -> Part:
    labels = np.asarray(data.labels)
    fault = None
    if set(data.features) != {modality.name for modality in modalities}:
        fault = f"{name} has features of {sorted(data.features)}, not of the declared modalities"
    elif labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        fault = f"{name}/label is not a list of whole numbers"
    elif len(data.ids) != len(labels):
        fault = f"{name} has {len(labels)} labels and {len(data.ids)} ids"
    elif not all(isinstance(value, str) and _is_text(value) for value in data.ids):
        fault = f"{name} has an id that is not valid text (UTF-8 without NUL)"
    elif data.labelled is not None and (name != "train" or np.shape(data.labelled) != labels.shape):
        fault = f"{name} cannot have a labelled mask of shape {np.shape(data.labelled)}"
    elif data.groups is not None and not (
        len(data.groups) == len(labels) and all(isinstance(value, str) and _is_text(value) for value in data.groups)
    ):
        fault = f"{name} has groups that are not one text per row"
    if fault:
        raise DataError(f"{path}: {fault}", _HINT)
    mask = None if data.labelled is None else np.array(data.labelled, np.bool_)
    present = {m: np.array(rows, np.bool_) for m, rows in (data.present or {}).items()}
    return Part(
        path,
        name,
        modalities,
        labels.astype(np.int64),
        np.array(data.ids, np.str_),
        mask,
        {m: rows for m, rows in present.items() if rows.shape != labels.shape or not rows.all()},
        None if data.groups is None else np.array(data.groups, np.str_),
    )


def _is_text(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _checked_blocks(
    path: Path, part: Part, modality: Modality, features: NDArray[Any] | Iterable[NDArray[Any]]
) -> Iterator[tuple[int, Features]]:
    """Yields (first row, block as float32) of a modality; checks every block, and that no rows are missing."""
    name = f"{part.name}/{modality.name}"
    step = max(1, hdf5.BLOCK_BYTES // (4 * modality.width))
    blocks = features
    if isinstance(features, np.ndarray):
        blocks = (features[first : first + step] for first in range(0, len(features), step))
    start = 0
    for raw in blocks:
        if raw.ndim != 2 or raw.shape[1] != modality.width or start + len(raw) > part.rows:
            raise DataError(
                f"{path}: rows {start}.. of {name} have the shape {raw.shape}, "
                f"which does not fit into {(part.rows, modality.width)}",
                _HINT,
            )
        with np.errstate(over="ignore"):  # a float64 that is too large becomes inf, which is rejected
            block = np.asarray(raw, np.float32)
        present = part.present.get(modality.name)
        rows = None if present is None else present[start : start + len(block)]
        fault = value_fault(block, modality.distribution, start, rows) if len(block) else None
        if fault:
            raise DataError(f"{path}: {name} {fault}", _HINT)
        yield start, block
        start += len(block)
    if start < part.rows:
        raise DataError(f"{path}: {name} has {start} rows, but there are {part.rows} labels", _HINT)


def _write_rows(group: h5py.Group, part: Part) -> None:
    hdf5.write_rows(group, "label", part.labels)
    hdf5.write_rows(group, "id", part.ids)
    if part.labelled is not None:
        hdf5.write_rows(group, "labelled", part.labelled)
    if part.groups is not None:
        hdf5.write_rows(group, "group", part.groups)
    for name, present in part.present.items():
        hdf5.write_rows(group.require_group("present"), name, present)


def _write_header(file: h5py.File, header: Header, schema: int, digest: str) -> None:
    hdf5.write_attribute(file, "schema", schema)
    hdf5.write_attribute(file, "dataset", header.dataset)
    if header.split is not None:
        hdf5.write_attribute(file, "split", header.split)
    hdf5.write_attribute(file, "classes", json.dumps(header.classes))
    hdf5.write_attribute(file, "modalities", json.dumps({m.name: m.distribution for m in header.modalities}))
    hdf5.write_attribute(file, "provenance", json.dumps(header.provenance, sort_keys=True))
    if header.preset is not None:
        hdf5.write_attribute(file, "preset", header.preset)
    for name, scaling in header.scaling.items():
        rows = np.stack([scaling.mean, scaling.deviation]).astype("<f4")
        hdf5.write_rows(file.require_group("scaling"), name, rows)
    if header.encoders:
        hdf5.write_attribute(file, "encoders", json.dumps(header.encoders, sort_keys=True))
    hdf5.write_attribute(file, "digest", digest)
