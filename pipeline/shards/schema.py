"""What makes a shard valid, apart from its file: each `*_fault` function says what is wrong, or returns None."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Distribution = Literal["bernoulli", "nonnegative", "gaussian"]
Features = NDArray[np.float32]

SCHEMA = 1
SCHEMA_HINT = "docs/reference/shard.md describes a valid shard"
RESERVED = ("label", "id", "labelled")
VALIDATION = "-validation"  # ends the name of data whose test part is a validation part of the training rows


@dataclass(frozen=True)
class Modality:
    """One kind of feature: its name, its width D, and the family of distributions that models its values."""

    name: str
    width: int
    distribution: Distribution


@dataclass(frozen=True)
class Header:
    """The root's attributes and the widths; `digest` and `preset` are None if the file does not record them."""

    dataset: str
    split: int | None
    classes: tuple[str, ...]
    modalities: tuple[Modality, ...]
    digest: str | None
    provenance: dict[str, Any]
    preset: str | None = None


@dataclass(frozen=True)
class RowData:
    """For each row of a part: labels int64 `[N]`, ids str `[N]`, and the mask bool `[N]` or None."""

    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    labelled: NDArray[np.bool_] | None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable() and value == value.strip()


def header_fault(header: Header) -> str | None:
    """What is wrong with the names, classes and modalities."""
    if not _is_name(header.dataset):
        return "the name of the data set is not printable text"
    if header.split is not None and header.split < 0:
        return f"split {header.split} is negative"
    if len(header.classes) < 2:
        return "there are fewer than two classes"
    for name in header.classes:
        if not _is_name(name) or header.classes.count(name) > 1:
            return f"the class name {name!r} is not printable text, or occurs twice"
    if not header.modalities:
        return "there is no modality"
    names = [modality.name for modality in header.modalities]
    for modality in header.modalities:
        name = modality.name
        if not _is_name(name) or set(name) & set("/+,") or name.startswith("."):
            return f"a modality cannot be named {name!r} (printable text without / + , or a leading dot)"
        if name in RESERVED or names.count(name) > 1:
            return f"the modality name {name!r} is {'reserved' if name in RESERVED else 'used twice'}"
        if modality.distribution not in get_args(Distribution):
            return f"modality {name} is {modality.distribution!r}, not bernoulli, nonnegative or gaussian"
        if modality.width < 1:
            return f"modality {name} has no columns"
    return None


def row_fault(classes: int, parts: Mapping[str, RowData]) -> str | None:
    """What is wrong with the labels, masks and ids of all parts together."""
    for name, part in parts.items():
        if len(part.labels) == 0:
            return f"{name} has no rows"
        outside = np.flatnonzero((part.labels < -1) | (part.labels >= classes))
        if outside.size:
            row = int(outside[0])
            return f"{name}/label is {part.labels[row]} in row {row}, outside -1..{classes - 1}"
        if part.labelled is not None:
            unknown = np.flatnonzero(part.labelled & (part.labels < 0))
            if unknown.size:
                return f"{name}/labelled marks row {unknown[0]}, whose label is unknown"
    ids = np.concatenate([part.ids for part in parts.values()])
    if (ids == "").any():
        return "an id is empty"
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        return f"the id {str(unique[counts > 1][0])!r} occurs more than once"
    return None


def value_fault(block: Features, distribution: Distribution, start: int) -> str | None:
    """What is wrong with a block of features `[n, D]`, n > 0, that begins at row `start` of its part."""
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
    """The digest of a shard's content: the header, then for each part its modalities, labels, mask and ids."""

    def __init__(self, header: Header) -> None:
        modalities = [[m.name, m.width, m.distribution] for m in header.modalities]
        content = [SCHEMA, header.dataset, header.split, list(header.classes), modalities]
        self._hash = hashlib.sha256(json.dumps(content).encode())

    def update(self, block: Features) -> None:
        """Adds consecutive rows of a modality; how they are divided into blocks makes no difference."""
        self._hash.update(np.ascontiguousarray(block, "<f4").data)

    def rows(self, rows: RowData) -> None:
        """Adds a part's labels, mask and ids."""
        self._hash.update(np.ascontiguousarray(rows.labels, "<i8").data)
        mask = None if rows.labelled is None else rows.labelled.astype(int).tolist()
        self._hash.update(json.dumps([mask, rows.ids.tolist()]).encode())

    def hexdigest(self) -> str:
        """The digest of everything added so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()
