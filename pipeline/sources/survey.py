"""What a person's data holds, counted and measured before any work begins.

Vectors are measured whole. Of pictures a sample of rows, spread evenly over all of them, is decoded; a picture of the
wrong kind in it is left out as unreadable ones are; if most are of the wrong kind, that is an error at once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.pictures import WrongKindError, picture_facts, read_colour, read_depth
from pipeline.runtime.errors import DataError
from pipeline.sources.doubts import doubts
from pipeline.sources.parts import Labelling
from pipeline.sources.rows import Source

SAMPLED = 200  # rows whose pictures are decoded
_LOW = 255  # depth that nowhere exceeds it has no more than 8 bits


@dataclass(frozen=True)
class ClassRows:
    """The labelled rows of a class."""

    name: str
    train: int
    test: int


@dataclass(frozen=True)
class ModalityFindings:
    """What there is of a modality: the rows that lack it, and a description of the others in words."""

    name: str
    lacking: int
    contents: str


@dataclass(frozen=True)
class Findings:
    """What a source holds; `groups` is None if nothing names any, `unlabelled` counts training and test rows."""

    rows: int
    complete: int
    test: int
    rule: str
    modalities: tuple[ModalityFindings, ...]
    classes: tuple[ClassRows, ...]
    unlabelled: tuple[int, int]
    groups: int | None
    left_out: dict[str, str]
    notes: tuple[str, ...]


def survey(source: Source, labelling: Labelling) -> Findings:
    """Counts rows, labels and groups, and looks at the values.

    Raises:
        WrongKindError: most pictures in the sample are of another kind than their place says.
        DataError: not one picture of the sample can be read.
    """
    present = {name: source.has(name) for name in source.modalities}
    train, test = (
        np.bincount(labelling.labels[part & (labelling.labels >= 0)], minlength=len(labelling.classes))
        for part in (~labelling.test, labelling.test)
    )
    unknown = labelling.labels < 0
    contents, notes = _pictures(source) if source.pictures else (_vectors(source), [])
    groups = None if labelling.groups is None else len(set(labelling.groups.tolist()) - {""})
    return Findings(
        rows=len(source.ids),
        complete=int(np.logical_and.reduce(list(present.values())).sum()),
        test=int(labelling.test.sum()),
        rule=labelling.rule,
        modalities=tuple(ModalityFindings(name, int((~rows).sum()), contents[name]) for name, rows in present.items()),
        classes=tuple(ClassRows(name, int(train[k]), int(test[k])) for k, name in enumerate(labelling.classes)),
        unlabelled=(int((unknown & ~labelling.test).sum()), int((unknown & labelling.test).sum())),
        groups=groups,
        left_out=dict(source.left_out),
        notes=(*source.notes, *doubts(source, labelling), *notes),
    )


def _vectors(source: Source) -> dict[str, str]:
    return {
        name: f"{values.shape[1]} values in {np.nanmin(values):.4g} .. {np.nanmax(values):.4g}"
        for name, values in source.vectors.items()
    }


def sample_of(count: int, most: int) -> list[int]:
    """At most so many numbers below `count`, evenly spread."""
    chosen: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()
    return chosen


def _pictures(source: Source) -> tuple[dict[str, str], list[str]]:
    contents: dict[str, str] = {}
    notes: list[str] = []
    sizes: dict[str, dict[int, tuple[int, int]]] = {}
    turned: dict[str, set[int]] = {}
    for camera, files in source.pictures.items():
        rows = [row for row, file in enumerate(files) if file is not None]
        chosen = [rows[k] for k in sample_of(len(rows), SAMPLED)]
        seen = "" if len(chosen) == len(rows) else f", in a sample of {len(chosen)}"
        read = _Depths() if camera == "depth" else _Colours()
        failures = {}
        for row in chosen:
            path = files[row]
            assert path is not None
            try:
                read.add(path)
                facts = picture_facts(path)
                sizes.setdefault(camera, {})[row] = facts.size
                if facts.turned:
                    turned.setdefault(camera, set()).add(row)
            except DataError as error:
                failures[row] = error
        wrong = [error for error in failures.values() if isinstance(error, WrongKindError)]
        if 2 * len(wrong) > len(chosen):  # not a few odd pictures, but a mistake about all of them
            raise wrong[0]
        if len(failures) == len(chosen):
            raise next(iter(failures.values()))
        if failures:
            first = next(iter(failures.values())).message
            notes.append(f"{len(failures)} {camera} pictures cannot be read{seen}; their rows are left out: {first}")
        contents[camera] = f"{len(rows)} pictures{seen}: {_sizes(list(sizes[camera].values()))}{read.words()}"
        notes += read.notes()
    both = set(sizes.get("rgb", {})) & set(sizes.get("depth", {}))
    differing = sum(sizes["rgb"][row] != sizes["depth"][row] for row in both)
    if differing:
        notes.append(
            f"colour and depth differ in size in {differing} of {len(both)} rows: each is made square by itself"
        )
    alone = len((turned.get("rgb", set()) ^ turned.get("depth", set())) & both)
    if alone:
        notes.append(
            f"in {alone} of {len(both)} rows EXIF data turn one of colour and depth: each is turned by its own data "
            "alone, so they do not lie on one another"
        )
    return contents, notes


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    common = Counter(sizes).most_common()
    if len(common) == 1:
        return f"{common[0][0][0]} x {common[0][0][1]}"
    widths, heights = zip(*sizes, strict=True)
    return f"{len(common)} sizes, {min(widths)} x {min(heights)} to {max(widths)} x {max(heights)}"


class _Colours:
    """Colour pictures, read one by one."""

    def __init__(self) -> None:
        self.deep = 0

    def add(self, path: Path) -> None:
        read_colour(path)
        self.deep += picture_facts(path).deep

    def words(self) -> str:
        return ""

    def notes(self) -> list[str]:
        if not self.deep:
            return []
        return [f"{self.deep} colour pictures have 16 bits per channel, of which the upper 8 are used"]


class _Depths:
    """Depth pictures, read one by one: their range, and how much of them is missing."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, 0.0
        self.valid, self.all, self.empty = 0, 0, 0
        self.kinds: set[str] = set()

    def add(self, path: Path) -> None:
        depth = read_depth(path)
        valid = depth[depth > 0]
        self.kinds.add("whole numbers" if depth.dtype == np.uint16 else "floating-point numbers")
        self.all += depth.size
        self.valid += valid.size
        self.empty += not valid.size
        if valid.size:
            self.low, self.high = min(self.low, float(valid.min())), max(self.high, float(valid.max()))

    def words(self) -> str:
        reach = f"{self.low:.6g} .. {self.high:.6g}" if self.valid else "nothing but holes"
        return f", {' and '.join(sorted(self.kinds))}, {reach}, {1 - self.valid / self.all:.1%} missing"

    def notes(self) -> list[str]:
        notes = []
        if self.empty:
            notes.append(f"{self.empty} depth pictures hold nothing but holes")
        if 0 < self.high <= _LOW and self.kinds == {"whole numbers"}:
            notes.append(
                f"no depth exceeds {self.high:g}: are these 8-bit values in a 16-bit file? Then distances are lost"
            )
        return notes
