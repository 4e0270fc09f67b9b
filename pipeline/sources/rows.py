"""One description of a person's data, whatever its form: rows with ids, modalities, labels, groups and parts.

A modality is either pictures, of which only the files are known here, or vectors, which are read whole. A row may lack
any of them. Labels and groups are texts; what no label means is said here once for all forms.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Features

Camera = Literal["rgb", "depth"]
CAMERAS: tuple[Camera, ...] = ("rgb", "depth")
FOLDER = "folder"  # as a group: the folder that holds the pictures
_NO_LABEL = frozenset({"", "_", "-1", "nan", "unlabelled", "unlabeled"})
_WHOLE = re.compile(r"(-?\d+)\.0*")  # a whole number that was written as a float
_MINUS_ONE = re.compile(r"-1\.0*")  # as a float, beside labels of another kind
_PARTS = {"": False, "train": False, "training": False, "test": True, "testing": True}


@dataclass(frozen=True, eq=False)
class Source:
    """A person's data, N rows.

    Attributes:
        path: what the person named.
        base: the folder that file names in messages are relative to.
        ids: one text per row, each once.
        pictures: by camera, the file of each row, or None where the row lacks it.
        vectors: by modality, float32 `[N, D]`; a row that lacks it holds NaN alone.
        labels: the class of each row as text, or None.
        labels_from: where labels were looked for, in words; None if there is no such place.
        groups: what a split must not cut through; empty for a row of its own. None if nothing says so.
        test: which rows belong to the test part, or None if nothing says so.
        left_out: what could not be used -> why.
        notes: other things that the person should know, one sentence each.
    """

    path: Path
    base: Path
    ids: tuple[str, ...]
    pictures: Mapping[Camera, tuple[Path | None, ...]] = field(default_factory=dict)
    vectors: Mapping[str, Features] = field(default_factory=dict)
    labels: tuple[str | None, ...] = ()
    labels_from: str | None = None
    groups: tuple[str, ...] | None = None
    test: NDArray[np.bool_] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of all modalities: cameras, or kinds of vectors."""
        return (*self.pictures, *self.vectors)

    def has(self, modality: str) -> NDArray[np.bool_]:
        """Which rows have a modality, `[N]`."""
        if modality in self.vectors:
            return np.asarray(~np.isnan(self.vectors[modality]).all(axis=1))
        files = next(files for camera, files in self.pictures.items() if camera == modality)
        return np.array([file is not None for file in files], np.bool_)


def check_modalities(source: Source) -> None:
    """Checks that every modality can be learned.

    Raises:
        DataError: no row has any value of one.
    """
    for name in source.vectors:
        if not source.has(name).any():
            raise DataError(f"{source.path}: no row has any value of the modality {name}", "leave it out")


@dataclass(frozen=True)
class Cells:
    """What a form says of its rows beside their modalities, each a text per row or None if it does not say it.

    `others` holds further columns, of which one may be chosen as the group.
    """

    ids: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    parts: Sequence[str] | None = None
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def chosen(self, rows: Sequence[int]) -> "Cells":
        """The same of some rows."""

        def of(texts: Sequence[str] | None) -> list[str] | None:
            return None if texts is None else [texts[row] for row in rows]

        others = {name: [texts[row] for row in rows] for name, texts in self.others.items()}
        return Cells(of(self.ids), of(self.labels), of(self.groups), of(self.parts), others)


def clean(text: str) -> str:
    """A text without spaces at its ends, in the one form (NFC) that letters with accents are compared in."""
    return unicodedata.normalize("NFC", text.strip())


def label_of(text: str) -> str | None:
    """The label that a text is; None for the texts that mean no label."""
    label = clean(text)
    return None if label.casefold() in _NO_LABEL or _MINUS_ONE.fullmatch(label) else label


def labels_of(texts: Sequence[str]) -> tuple[str | None, ...]:
    """The labels of a column; whole numbers that a program wrote as floats, since some were missing, are whole."""
    cleaned = [clean(text) for text in texts]
    given = [text for text in cleaned if label_of(text) is not None]
    if given and all(_WHOLE.fullmatch(text) for text in given):
        cleaned = [match[1] if (match := _WHOLE.fullmatch(text)) else text for text in cleaned]
    return tuple(map(label_of, cleaned))


def groups_of(where: str, cells: Cells, group: str | None, folders: Sequence[str] | None) -> tuple[str, ...] | None:
    """The groups of the rows: of a column that is named, of the pictures' folders, or of the column `group`.

    Args:
        where: names the form in messages.
        group: a column's name, `folder`, or None.
        folders: the folder of each row's pictures, or None for vectors.

    Raises:
        DataError: there is no such column, or there are no folders.
    """
    columns = dict(cells.others) | ({} if cells.groups is None else {"group": cells.groups})
    if group is None:
        texts = cells.groups
    elif group in columns:
        texts = columns[group]
    elif group == FOLDER and folders is not None:
        texts = folders
    else:
        known = [*columns, *([FOLDER] if folders is not None else [])]
        raise DataError(
            f"{where}: has no column {group!r} to group by",
            f"--group may be {', '.join(known)}"
            if known
            else "leave --group out: nothing here says what belongs together",
        )
    return None if texts is None else tuple(map(clean, texts))


def parts_of(where: str, cells: Cells, ids: Sequence[str]) -> NDArray[np.bool_] | None:
    """Which rows the column `split` puts into the test part; None without such a column.

    Raises:
        DataError: a text is neither train nor test.
    """
    if cells.parts is None:
        return None
    test = []
    for name, text in zip(ids, cells.parts, strict=True):
        part = _PARTS.get(text.strip().casefold())
        if part is None:
            raise DataError(
                f"{where}: the split of {name} is {text.strip()!r}, not train or test",
                "mmssl data import takes two parts: name them train and test",
            )
        test.append(part)
    return np.array(test, np.bool_)


def checked_ids(where: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Ids, each once and not empty.

    Raises:
        DataError: an id occurs twice, or is empty.
    """
    known: set[str] = set()
    for row, name in enumerate(ids):
        if not name or "\0" in name:
            raise DataError(f"{where}: row {row} has an empty id", "every row needs an id of its own, or none has one")
        if name in known:
            raise DataError(f"{where}: the id {name!r} occurs twice", "give every row an id of its own in a column id")
        known.add(name)
    return tuple(ids)
