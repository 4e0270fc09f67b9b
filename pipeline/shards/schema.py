"""What makes a shard valid, apart from its file: each `*_fault` function says what is wrong, or returns None."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Distribution = Literal["bernoulli", "nonnegative", "gaussian"]
Features = NDArray[np.float32]

SCHEMA = 2  # the newest; a shard that uses nothing of schema 2 is written as schema 1, whose digest it keeps
SCHEMAS = (1, 2)
SCHEMA_HINT = "docs/reference/shard.md describes a valid shard"
_ROWS = {1: ("label", "id", "labelled"), 2: ("label", "id", "labelled", "group", "present")}  # what else a part holds
NEVER = "?"  # where a person gives labels, in place of a class: never ask about this row again
VALIDATION = "-validation"  # ends the name of data whose test part is a validation part of the training rows


@dataclass(frozen=True)
class Modality:
    """One kind of feature: its name, its width D, and the family of distributions that models its values."""

    name: str
    width: int
    distribution: Distribution


@dataclass(frozen=True)
class Scaling:
    """How a modality's values were scaled before they were stored: `(value - mean) / deviation`, `[D]` float32 each."""

    mean: Features
    deviation: Features

    def __call__(self, values: Features) -> Features:
        """Scales new values `[n, D]` as the stored ones were."""
        scaled: Features = ((values - self.mean) / self.deviation).astype(np.float32)
        return scaled


@dataclass(frozen=True)
class Header:
    """The root's attributes, the widths and the scaling.

    `digest` and `preset` are None if the file does not record them; `scaling` and `encoders` hold the modalities that
    have one.
    """

    dataset: str
    split: int | None
    classes: tuple[str, ...]
    modalities: tuple[Modality, ...]
    digest: str | None
    provenance: dict[str, Any]
    preset: str | None = None
    scaling: Mapping[str, Scaling] = field(default_factory=dict)
    encoders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RowData:
    """What a part holds for each of its rows beside the features.

    Attributes:
        labels: int64 `[N]`, a class index or -1.
        ids: str `[N]`.
        labelled: bool `[N]`, the rows whose label may be used in training, or None.
        present: bool `[N]` by modality: which rows have it. A modality that is not in it is present in every row.
        groups: str `[N]`, what a split must not cut through, or None; an empty text is a row of no group.
    """

    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    labelled: NDArray[np.bool_] | None
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    groups: NDArray[np.str_] | None = None

    @property
    def needs_schema_2(self) -> bool:
        """Whether schema 1 cannot hold these rows."""
        return not len(self.labels) or bool(self.present) or self.groups is not None


def stored_name(modality: str, schema: int) -> str:
    """The name of a modality's data set in each part: its own, or after a dot where the part holds something so called.

    No modality's name begins with a dot, so none is taken for another. Schema 1 has no such modalities.
    """
    return f".{modality}" if modality in _ROWS[schema] else modality


def needs_schema_2(modalities: Iterable[Modality]) -> bool:
    """Whether a name of these modalities needs schema 2."""
    return any(modality.name in _ROWS[1] for modality in modalities)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable() and value == value.strip()


def is_class_name(value: object) -> bool:
    """Whether a class can have this name: text that every file can hold, with no white space at its ends."""
    if not isinstance(value, str) or not value or value != value.strip() or "\0" in value:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def header_fault(header: Header, schema: int) -> str | None:
    """What is wrong with the names, classes and modalities."""
    unknown = sorted({*header.scaling, *header.encoders} - {modality.name for modality in header.modalities})
    if unknown:
        return f"there is a scaling or an encoder of {unknown[0]!r}, which is no modality"
    for modality in header.modalities:
        scaling = header.scaling.get(modality.name)
        if scaling is not None and not _is_scaling(scaling, modality.width):
            return f"the scaling of {modality.name} is not {modality.width} finite means and positive deviations"
    if not _is_name(header.dataset):
        return "the name of the data set is not printable text"
    if header.split is not None and header.split < 0:
        return f"split {header.split} is negative"
    if len(header.classes) < 2:
        return "there are fewer than two classes"
    occurs = Counter(name for name in header.classes if isinstance(name, str))
    for name in header.classes:
        if not is_class_name(name) or occurs[name] > 1:
            return f"the class name {name!r} is not text, is empty or blank at its ends, or occurs twice"
    if not header.modalities:
        return "there is no modality"
    occurs = Counter(modality.name for modality in header.modalities if isinstance(modality.name, str))
    for modality in header.modalities:
        name = modality.name
        if not _is_name(name) or set(name) & set("/+,") or name.startswith("."):
            return f"a modality cannot be named {name!r} (printable text without / + , or a leading dot)"
        if schema == 1 and name in _ROWS[schema]:
            return f"a modality cannot be named {name!r} in schema 1, whose parts hold something else under this name"
        if occurs[name] > 1:
            return f"the modality name {name!r} is used twice"
        if modality.distribution not in get_args(Distribution):
            return f"modality {name} is {modality.distribution!r}, not bernoulli, nonnegative or gaussian"
        if modality.width < 1:
            return f"modality {name} has no columns"
    return None


def _is_scaling(scaling: Scaling, width: int) -> bool:
    mean, deviation = np.asarray(scaling.mean), np.asarray(scaling.deviation)
    if mean.shape != (width,) or deviation.shape != (width,):
        return False
    return bool(np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all())


def row_fault(header: Header, schema: int, parts: Mapping[str, RowData]) -> str | None:
    """What is wrong with the labels, masks, ids and groups of all parts together."""
    classes = len(header.classes)
    for name, part in parts.items():
        if len(part.labels) == 0 and (schema == 1 or name != "test"):
            return f"{name} has no rows"
        fault = _presence_fault(name, part, header.modalities)
        if fault:
            return fault
        outside = np.flatnonzero((part.labels < -1) | (part.labels >= classes))
        if outside.size:
            row = int(outside[0])
            return f"{name}/label is {part.labels[row]} in row {row}, outside -1..{classes - 1}"
        if part.labelled is not None:
            unknown = np.flatnonzero(part.labelled & (part.labels < 0))
            if unknown.size:
                return f"{name}/labelled marks row {unknown[0]}, whose label is unknown"
    groups = [set(np.unique(part.groups[part.groups != ""])) for part in parts.values() if part.groups is not None]
    shared = sorted(set.intersection(*groups)) if len(groups) > 1 else []
    if shared:
        return f"the group {str(shared[0])!r} has rows in both parts"
    ids = np.concatenate([part.ids for part in parts.values()])
    if (ids == "").any():
        return "an id is empty"
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        return f"the id {str(unique[counts > 1][0])!r} occurs more than once"
    return None


def _presence_fault(name: str, part: RowData, modalities: tuple[Modality, ...]) -> str | None:
    known = {modality.name for modality in modalities}
    for modality, present in part.present.items():
        if modality not in known:
            return f"{name}/present/{modality} is of no modality"
        if present.shape != part.labels.shape:
            return f"{name}/present/{modality} has the shape {present.shape}, not {part.labels.shape}"
    if known == set(part.present):
        nothing = np.flatnonzero(~np.logical_or.reduce(list(part.present.values())))
        if nothing.size:
            return f"row {nothing[0]} of {name} has no modality at all"
    return None


def value_fault(
    block: Features, distribution: Distribution, start: int, present: NDArray[np.bool_] | None = None
) -> str | None:
    """What is wrong with a block of features `[n, D]`, n > 0, that begins at row `start` of its part.

    Args:
        present: which of these rows have the modality, `[n]`, or None for all; the others hold zeros.
    """
    if present is not None and not present.all():
        filled = np.flatnonzero((block != 0).any(axis=1) & ~present)
        if filled.size:
            return f"holds values in row {start + filled[0]}, which lacks this modality and should hold zeros"
    low, high = block.min(), block.max()  # a NaN anywhere makes both NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
        return f"holds a value that is not finite in row {row}"
    if distribution == "bernoulli" and (low < 0 or high > 1):
        return f"holds {low if low < 0 else high:g}, outside the [0, 1] of a bernoulli modality"
    if distribution == "nonnegative" and low < 0:
        return f"holds {low:g}, below the 0 of a nonnegative modality"
    return None


class Hasher:
    """The digest of a shard's content: the header, then for each part its modalities and its rows."""

    def __init__(self, header: Header, schema: int) -> None:
        modalities = [[m.name, m.width, m.distribution] for m in header.modalities]
        content = [schema, header.dataset, header.split, list(header.classes), modalities]
        self._schema = schema
        self._hash = hashlib.sha256(json.dumps(content).encode())

    def update(self, block: Features) -> None:
        """Adds consecutive rows of a modality; how they are divided into blocks makes no difference."""
        self._hash.update(np.ascontiguousarray(block, "<f4").data)

    def rows(self, rows: RowData) -> None:
        """Adds a part's labels, mask and ids, and from schema 2 on what its rows lack, and their groups."""
        self._hash.update(np.ascontiguousarray(rows.labels, "<i8").data)
        mask = None if rows.labelled is None else rows.labelled.astype(int).tolist()
        self._hash.update(json.dumps([mask, rows.ids.tolist()]).encode())
        if self._schema > 1:
            present = {name: rows.present[name].astype(int).tolist() for name in sorted(rows.present)}
            groups = None if rows.groups is None else rows.groups.tolist()
            self._hash.update(json.dumps([present, groups]).encode())

    def hexdigest(self) -> str:
        """The digest of everything added so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()
