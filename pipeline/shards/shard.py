"""The contract between the two stages: one HDF5 file with all that a training run reads (docs/reference/shard.md).

`train/` and `test/` each hold one `[N, D]` float32 data set per modality, `label [N]` (class index, -1 = unknown) and
`id [N]`; `train/labelled [N]` exists if the data fixes which labels may be used. The root's attributes hold the rest:
`schema`, `dataset`, `classes`, `modalities`, and, if known, `split`, `provenance`, `digest` and `preset`.

Schema 2 adds what data of one's own needs: `<part>/present/<modality> [N]` says which rows have a modality,
`<part>/group [N]` what a split must not cut through, `scaling/<modality>` and the attribute `encoders` how new inputs
become such features; and `test` may be absent. Version 1 remains valid.

A shard is written whole or not at all, validated when it is opened, and never changed afterwards.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError
from pipeline.runtime.versions import newer
from pipeline.shards.schema import (
    SCHEMA,
    SCHEMA_HINT,
    SCHEMAS,
    Distribution,
    Features,
    Hasher,
    Header,
    Modality,
    RowData,
    Scaling,
    header_fault,
    row_fault,
    stored_name,
    value_fault,
)

__all__ = ["Distribution", "Features", "Modality", "Part", "Scaling", "Shard"]

_log = logging.getLogger(__name__)
_PARTS = ("train", "test")
_HINT = SCHEMA_HINT


@dataclass(frozen=True, eq=False)
class Part:
    """The training or the test rows of a shard. Features are read on demand; no file stays open in between.

    Attributes:
        labels: int64 `[N]`, a class index, or -1 if the class is unknown.
        ids: str `[N]`, unique within the shard.
        labelled: bool `[N]`, the rows whose label may be used in training, or None if the data does not fix them.
        present: bool `[N]` by modality, for the modalities that some rows lack; these rows hold zeros.
        groups: str `[N]`, what a split must not cut through, or None.
        schema: the version of the file's schema.
    """

    path: Path
    name: str
    modalities: tuple[Modality, ...]
    labels: NDArray[np.int64] = field(repr=False)
    ids: NDArray[np.str_] = field(repr=False)
    labelled: NDArray[np.bool_] | None = field(repr=False)
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict, repr=False)
    groups: NDArray[np.str_] | None = field(default=None, repr=False)
    schema: int = SCHEMA

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return len(self.labels)

    @property
    def row_data(self) -> RowData:
        """All that is not a feature, together."""
        return RowData(self.labels, self.ids, self.labelled, self.present, self.groups)

    def has(self, modality: str) -> NDArray[np.bool_]:
        """Which rows have a modality, `[N]`."""
        present = self.present.get(modality)
        return np.ones(self.rows, np.bool_) if present is None else present

    def features(self, modality: str, rows: slice | None = None) -> Features:
        """Reads the features of one modality, `[N, D]` float32, or those of a slice of rows with a positive step.

        Raises:
            DataError: there is no such modality, or the file was damaged since it was opened.
            ValueError: the step is not positive.
        """
        start, stop, step = (rows or slice(None)).indices(self.rows)
        if step < 1:
            raise ValueError(f"rows are read forwards, but the step is {step}")
        known = [m.name for m in self.modalities]
        if modality not in known:
            raise DataError(f"{self.path}: there is no modality {modality!r}, only {', '.join(known)}")
        if not self.rows:
            return np.empty((0, next(m.width for m in self.modalities if m.name == modality)), np.float32)
        with hdf5.reading(self.path) as file:
            source = hdf5.dataset(self.path, file, self._place(modality))
            return np.ascontiguousarray(hdf5.read(self.path, source, slice(start, max(start, stop), step)), np.float32)

    def pieces(self, names: Sequence[str], rows: Iterable[slice]) -> Iterator[dict[str, Features]]:
        """Yields the features of some modalities for each of many slices of rows, opening the file only once.

        Raises:
            DataError: as `features`.
        """
        if not self.rows:
            return
        with hdf5.reading(self.path) as file:
            sources = {name: hdf5.dataset(self.path, file, self._place(name)) for name in names}
            for piece in rows:
                yield {
                    name: np.ascontiguousarray(hdf5.read(self.path, source, piece), np.float32)
                    for name, source in sources.items()
                }

    def _place(self, modality: str) -> str:
        return f"{self.name}/{stored_name(modality, self.schema)}"

    def blocks(self, modality: str) -> Iterator[Features]:
        """Yields the features of one modality in order, about 8 MiB at a time.

        Raises:
            DataError: as `features`.
        """
        width = next((m.width for m in self.modalities if m.name == modality), 1)
        step = max(1, hdf5.BLOCK_BYTES // (4 * width))
        for start in range(0, self.rows, step):
            yield self.features(modality, slice(start, start + step))


def empty_part(path: Path, name: str, modalities: tuple[Modality, ...]) -> Part:
    """A part without rows: what stands for a test part that a file does not have."""
    return Part(path, name, modalities, np.empty(0, np.int64), np.empty(0, np.str_), None)


@dataclass(frozen=True, eq=False)
class Shard:
    """An opened, validated shard: holds labels and ids, and reads features on demand.

    Attributes:
        split: the number of the train/test split, or None if the data set has only one.
        classes: the K class names; a label is an index into them.
        modalities: in the file's order.
        digest: sha256 of the content (not of the provenance): shards with the same digest give the same training.
        digest_recorded: whether the file records the digest; otherwise it was computed on opening.
        provenance: how the shard was made, free-form.
        preset: the name of the settings that suit the data, or None if the file names none.
        scaling: by modality, how its values were scaled before they were stored.
        encoders: by modality, the recipe of the network that made its features (`pipeline.features.encoder`).
        test: has no rows if the file has no test part.
        original: the shard as its file has it, if a run's answers were put into this one (`trainer.data.answers`).
    """

    path: Path
    dataset: str
    split: int | None
    classes: tuple[str, ...]
    modalities: tuple[Modality, ...]
    digest: str
    digest_recorded: bool
    provenance: dict[str, Any] = field(repr=False)
    train: Part
    test: Part
    preset: str | None = None
    scaling: Mapping[str, Scaling] = field(default_factory=dict, repr=False)
    encoders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    original: "Shard | None" = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Opens a shard and validates it: schema, shapes, types, finite values in range, labels, ids.

        Every feature is read once, in blocks, so that per-chunk checksums are checked too.

        Raises:
            DataError: the file is missing, damaged, or not a valid shard; the message says what is wrong.
        """
        return cls._load(Path(path), rehash=False)

    def verify(self) -> None:
        """Reads every byte again and checks all that `open` checks, and the content's digest if the file records one.

        Raises:
            DataError: the file is damaged or was changed.
        """
        reread = self._load(self.path, rehash=True)
        if not self.digest_recorded:
            _log.warning("%s: no digest is recorded in it; everything else was verified", self.path)
        if reread.digest != self.digest:
            raise DataError(
                f"{self.path}: its content does not match its digest, so it was changed or damaged", hdf5.DAMAGE_HINT
            )

    @classmethod
    def _load(cls, path: Path, rehash: bool) -> Self:
        with hdf5.reading(path) as file:
            header, schema = _read_header(path, file)
            parts = {name: _read_part(path, file, name, header.modalities, schema) for name in _PARTS}
            fault = row_fault(header, schema, {name: part.row_data for name, part in parts.items()})
            if fault:
                raise DataError(f"{path}: {fault}", _HINT)
            hasher = Hasher(header, schema) if rehash or header.digest is None else None
            for part in parts.values():
                for modality in header.modalities if part.rows else ():
                    _scan(path, file, part, modality, hasher)
                if hasher:
                    hasher.rows(part.row_data)
        return cls(
            path=path,
            dataset=header.dataset,
            split=header.split,
            classes=header.classes,
            modalities=header.modalities,
            digest=hasher.hexdigest() if hasher else str(header.digest),
            digest_recorded=header.digest is not None,
            provenance=header.provenance,
            train=parts["train"],
            test=parts["test"],
            preset=header.preset,
            scaling=header.scaling,
            encoders=header.encoders,
        )


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_header(path: Path, file: h5py.File) -> tuple[Header, int]:
    """The header, and the version of the schema."""
    schema, dataset, split, digest, preset = (
        hdf5.attribute(path, file, name) for name in ("schema", "dataset", "split", "digest", "preset")
    )
    if type(schema) is not int:
        raise DataError(f"{path}: is not a shard: the attribute schema is missing or not an integer", _HINT)
    if schema > SCHEMA:
        raise newer(path, f"schema {schema}", f"reads schemas 1 to {SCHEMA}")
    if schema not in SCHEMAS:
        raise DataError(f"{path}: has schema {schema}, but this version reads schemas 1 to {SCHEMA}", _HINT)
    classes = hdf5.parse_json(path, "classes", hdf5.attribute(path, file, "classes"), list)
    distributions = hdf5.parse_json(path, "modalities", hdf5.attribute(path, file, "modalities"), dict)
    provenance = hdf5.attribute(path, file, "provenance")
    if not isinstance(split, int | None) or not isinstance(digest, str | None) or not isinstance(preset, str | None):
        raise DataError(f"{path}: the attribute split is not an integer, or digest or preset is not text", _HINT)
    for name in _PARTS:
        if name == "train" or schema == 1 or name in file:
            hdf5.members(path, file, name)
    modalities = tuple(
        Modality(name, _read_width(path, file, name, schema), family) for name, family in distributions.items()
    )
    content = {} if provenance is None else hdf5.parse_json(path, "provenance", provenance, dict)
    encoders = hdf5.attribute(path, file, "encoders")
    header = Header(
        dataset,
        split,
        tuple(classes),
        modalities,
        digest,
        content,
        preset,
        {} if schema == 1 else _read_scaling(path, file),
        {} if encoders is None else hdf5.parse_json(path, "encoders", encoders, dict),
    )
    fault = header_fault(header, schema)
    if fault:
        raise DataError(f"{path}: {fault}", _HINT)
    if not all(isinstance(recipe, dict) for recipe in header.encoders.values()):
        raise DataError(f"{path}: the attribute encoders does not hold one recipe per modality", _HINT)
    return header, schema


def _read_scaling(path: Path, file: h5py.File) -> dict[str, Scaling]:
    if "scaling" not in file:
        return {}
    scaling = {}
    for name in hdf5.members(path, file, "scaling"):
        values = hdf5.read(path, hdf5.dataset(path, file, f"scaling/{name}"))
        if values.dtype.kind != "f" or values.ndim != 2 or len(values) != 2:
            raise DataError(f"{path}: scaling/{name} is not a mean and a deviation per column", _HINT)
        scaling[name] = Scaling(*(_frozen(row.astype(np.float32)) for row in values))
    return scaling


def _read_width(path: Path, file: h5py.File, modality: str, schema: int) -> int:
    shape = hdf5.dataset(path, file, f"train/{stored_name(modality, schema)}").shape
    return int(shape[1]) if len(shape) == 2 else 0


def _read_part(path: Path, file: h5py.File, part: str, modalities: tuple[Modality, ...], schema: int) -> Part:
    if part not in file:  # `_read_header` has checked that it may be absent
        return empty_part(path, part, modalities)
    members = hdf5.members(path, file, part)
    optional = [name for name, allowed in (("labelled", part == "train"), ("group", schema > 1)) if allowed]
    lacking = hdf5.members(path, file, f"{part}/present") if schema > 1 and "present" in members else []
    sources = {name: hdf5.dataset(path, file, f"{part}/{name}") for name in ("label", "id")}
    sources |= {name: hdf5.dataset(path, file, f"{part}/{name}") for name in optional if name in members}
    sources |= {f"present/{name}": hdf5.dataset(path, file, f"{part}/present/{name}") for name in lacking}
    rows = sources["label"].shape[:1]
    if not rows:
        raise DataError(f"{path}: {part}/label is a single value, not one per row", _HINT)
    widths: dict[str, tuple[int, ...]] = dict.fromkeys(sources, ())
    for modality in modalities:
        stored = stored_name(modality.name, schema)
        sources[stored] = source = hdf5.dataset(path, file, f"{part}/{stored}")
        widths[stored] = (modality.width,)
        if source.dtype.kind != "f" or source.dtype.itemsize != 4:
            raise DataError(f"{path}: {part}/{stored} is {source.dtype}, not float32", _HINT)
    for name, source in sources.items():
        width = widths[name]
        if source.shape != rows + width:
            raise DataError(f"{path}: {part}/{name} has the shape {source.shape}, not {rows + width}", _HINT)
    labels = hdf5.read(path, sources["label"])
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {part}/label is {labels.dtype}, not whole numbers", _HINT)
    masks = {}
    for name in sources:
        if name == "labelled" or name.startswith("present/"):
            mask = hdf5.read(path, sources[name])
            if mask.dtype.kind not in "biu" or not np.isin(mask, (0, 1)).all():
                raise DataError(f"{path}: {part}/{name} is not true or false in every row", _HINT)
            masks[name] = _frozen(mask.astype(np.bool_))
    return Part(
        path=path,
        name=part,
        modalities=modalities,
        labels=_frozen(labels.astype(np.int64)),
        ids=_frozen(hdf5.read_text(path, sources["id"])),
        labelled=masks.get("labelled"),
        present={name: masks[f"present/{name}"] for name in lacking},
        groups=_frozen(hdf5.read_text(path, sources["group"])) if schema > 1 and "group" in sources else None,
        schema=schema,
    )


def _scan(path: Path, file: h5py.File, part: Part, modality: Modality, hasher: Hasher | None) -> None:
    name = f"{part.name}/{stored_name(modality.name, part.schema)}"
    present = part.present.get(modality.name)
    source = hdf5.dataset(path, file, name)
    step = max(1, hdf5.BLOCK_BYTES // (4 * source.shape[1]))
    for start in range(0, source.shape[0], step):
        block = np.asarray(hdf5.read(path, source, slice(start, start + step)), np.float32)
        rows = None if present is None else present[start : start + step]
        fault = value_fault(block, modality.distribution, start, rows)
        if fault:
            raise DataError(f"{path}: {name} {fault}", _HINT)
        if hasher:
            hasher.update(block)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
