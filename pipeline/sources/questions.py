"""The CSV that asks a person for labels: written by `mmssl suggest`, filled in by hand, read by `mmssl train`.

A line is a row of a shard's training part. The person fills the column `label`: a class, `?` for never to be asked
again, or nothing, which leaves the row for later. Spreadsheets may have changed separators, line ends, the order of
lines, and ids into numbers; the column `shard` tells whose rows they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.runtime.csv_writing import csv_lines
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import write_atomically
from pipeline.shards.schema import NEVER, is_class_name
from pipeline.shards.shard import Shard
from pipeline.sources.csv_tables import Table, read_table
from pipeline.sources.rows import clean, label_of

FILE_NAME = "_file_name"  # ends the columns of pictures, as in metadata.csv
_DIGITS = 12  # of the shard's digest; `sha256:` before them keeps spreadsheets from reading a number
_NAMED = 10  # classes that a hint lists
_FIRST, _LAST = ("row", "id", "group", "label"), ("shard",)
_NUMBERS = ("probability", "disagreement", "distance")
_KNOWN = {*_FIRST, *_LAST, *_NUMBERS, "predicted"}


@dataclass(frozen=True)
class Question:
    """One row that a person is asked about, or has answered.

    Attributes:
        row: its number in the training part.
        id: its id in the shard.
        label: what the person wrote: a class, `?`, or nothing yet.
        predicted: the class that the model takes it for; empty where no model knows classes yet.
        probability: of that class; None likewise.
        disagreement: how much the opinions on the row differ, in nats; None likewise.
        distance: how far from all rows that are labelled or were chosen before it, as `mmssl suggest` measures; None if
            there are none.
        files: by modality, its picture, relative to the folder of the CSV.
        others: further columns, which are kept as they are.
    """

    row: int
    id: str
    group: str = ""
    label: str = ""
    predicted: str = ""
    probability: float | None = None
    disagreement: float | None = None
    distance: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def about(cls, shard: Shard, row: int, **said: Any) -> "Question":
        """A question about a row, with its id and group."""
        group = "" if shard.train.groups is None else str(shard.train.groups[row])
        return cls(row, str(shard.train.ids[row]), group, **said)


@dataclass(frozen=True)
class Answer:
    """What a person said of a row, and where: a class, or None for never to be asked again."""

    label: str | None
    place: str


def shard_mark(shard: Shard) -> str:
    """What the column `shard` says of a shard: the beginning of its digest."""
    return f"sha256:{shard.digest[:_DIGITS]}"


def files_folder(path: Path) -> Path:
    """The folder for the pictures of a CSV, beside it: `ask_files` for `ask.csv`."""
    return path.with_name(f"{path.stem}_files")


def write_questions(path: Path, questions: Sequence[Question], shard: Shard) -> None:
    """Writes questions about a shard's rows as a CSV, whole or not at all, with the labels they have so far.

    Raises:
        StorageError: the disk is full or refuses.
    """
    files = [m.name for m in shard.modalities if any(m.name in question.files for question in questions)]
    others = list(dict.fromkeys(name for question in questions for name in question.others))
    first = [name for name in _FIRST if name != "group" or shard.train.groups is not None]
    rows: list[list[str | int]] = [
        [*first, "predicted", *_NUMBERS, *others, *(f"{name}{FILE_NAME}" for name in files), *_LAST]
    ]
    for question in questions:
        rows.append(
            [
                *(getattr(question, name) for name in first),
                question.predicted,
                *(_number(getattr(question, name)) for name in _NUMBERS),
                *(question.others.get(name, "") for name in others),
                *(question.files.get(name, "") for name in files),
                shard_mark(shard),
            ]
        )
    write_atomically(path, "".join(csv_lines(rows)))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def read_questions(path: Path, shard: Shard) -> list[Question]:
    """Reads questions about a shard's rows, answered or not, in the order of the file.

    Labels are as the person wrote them: `read_answers` says what they mean.

    Raises:
        DataError: it is not such a file, or a line belongs to no row of the shard.
    """
    return [question for question, _ in _questions(path, shard)]


def _questions(path: Path, shard: Shard) -> list[tuple[Question, str]]:
    """The questions, and the place of each in the file, for messages."""
    table = read_table(path)
    columns = {name.casefold(): texts for name, texts in table.columns.items()}
    if "label" not in columns or not {"row", "id"} & set(columns):
        raise DataError(
            f"{path}: has no column {'row or id' if 'label' in columns else 'label'}, so it asks for no labels",
            "mmssl suggest RUN --out ask.csv writes one; fill its column label",
        )
    _check_shard(table, columns.get("shard"), shard)
    finder = _Finder(shard)
    files = {m.name: f"{m.name}{FILE_NAME}".casefold() for m in shard.modalities}
    known = {*_KNOWN, *files.values()}
    others = {name: texts for name, texts in table.columns.items() if name.casefold() not in known}

    def text(name: str, line: int) -> str:
        return columns[name][line] if name in columns else ""

    def number(name: str, line: int) -> float | None:
        return _float(text(name, line))

    found, lines = [], dict[int, int]()
    for line in range(len(table.lines)):
        row = finder.row(text("row", line), text("id", line), table.place(line))
        if row in lines:
            raise DataError(
                f"{table.place(line)}: is about the same row as line {table.lines[lines[row]]}: {shard.train.ids[row]}",
                "remove one of the two",
            )
        lines[row] = line
        question = Question.about(
            shard,
            row,
            label=text("label", line),
            predicted=text("predicted", line),
            probability=number("probability", line),
            disagreement=number("disagreement", line),
            distance=number("distance", line),
            files={name: text(column, line) for name, column in files.items() if text(column, line)},
            others={name: texts[line] for name, texts in others.items()},
        )
        found.append((question, table.place(line)))
    return found


def _check_shard(table: Table, marks: Sequence[str] | None, shard: Shard) -> None:
    for line, mark in enumerate(marks or ()):
        if mark and mark != shard_mark(shard):
            raise DataError(
                f"{table.place(line)}: is about rows of other data ({mark[:40]}), not of {shard.path} "
                f"({shard_mark(shard)})",
                "train on the data that the rows were chosen from (--data), or ask again: mmssl suggest RUN",
            )


class _Finder:
    """Finds the row that a line is about."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.ids = [str(name) for name in shard.train.ids]
        self.by_id = {clean(name): row for row, name in enumerate(self.ids)}
        self.by_number: dict[float, list[int]] = {}
        for row, name in enumerate(self.ids):
            if (value := _float(name)) is not None:
                self.by_number.setdefault(value, []).append(row)

    def row(self, row: str, name: str, place: str) -> int:
        """The row of a line's cells `row` and `id`, of which one may be empty.

        Raises:
            DataError: there is no such row, or the two are not of one row.
        """
        if not row:
            return self._of_id(name, place)
        value = _float(row)
        if value is None or value != int(value) or not 0 <= value < len(self.ids):
            raise DataError(
                f"{place}: row {row!r} is not one of the {len(self.ids):,} training rows of {self.shard.path}",
                "rows count from 0; leave the columns row and id as mmssl suggest wrote them",
            )
        number = int(value)
        actual = self.ids[number]
        if name and clean(actual) != clean(name) and (_float(name) is None or _float(name) != _float(actual)):
            raise DataError(
                f"{place}: row {number} of {self.shard.path} is {actual!r}, not {name!r}",
                "if the file was sorted, all its columns must have been sorted together",
            )
        return number

    def _of_id(self, name: str, place: str) -> int:
        if clean(name) in self.by_id:
            return self.by_id[clean(name)]
        value = _float(name)
        rows = self.by_number.get(value, []) if value is not None else []
        if len(rows) != 1:
            raise DataError(
                f"{place}: {self.shard.path} has {'several rows' if rows else 'no training row'} with the id {name!r}",
                "leave the columns row and id as mmssl suggest wrote them",
            )
        return rows[0]


def _float(text: str) -> float | None:
    """A number as spreadsheets of any country write it; None if it is no finite number."""
    try:
        value = float(text.replace(",", ".", 1))
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


# --- answers ---------------------------------------------------------------------------------------------------------


def read_answers(path: Path, shard: Shard, new_classes: bool = False) -> dict[int, Answer]:
    """What a person answered, by row of the training part; rows without an answer are not in it.

    Args:
        new_classes: whether labels may be classes that the shard does not have.

    Raises:
        DataError: as for `read_questions`; or a label is no class of the shard, and new ones are not allowed.
    """
    answers = {}
    for question, place in _questions(path, shard):
        if clean(question.label) == NEVER:
            answers[question.row] = Answer(None, place)
        elif label_of(question.label) is not None or clean(question.label) in shard.classes:
            answers[question.row] = Answer(class_of(question.label, shard.classes, place, new_classes), place)
    return answers


def class_of(text: str, classes: Sequence[str], place: str, new_classes: bool = False) -> str:
    """The class that a text names: spelt the same, but for capitals, `_` for spaces, and numbers' forms (3.0, 03).

    Args:
        place: where it stands, for the message.
        new_classes: whether it may be a class of its own.

    Raises:
        DataError: it names none, or several.
    """
    label = clean(text)
    if label in classes:
        return label
    value = _float(label)
    for alike in (
        [name for name in classes if _folded(name) == _folded(label)],
        [name for name in classes if value is not None and _float(name) == value],
    ):
        if len(alike) == 1:
            return alike[0]
    if new_classes and is_class_name(label) and label_of(label) is not None:
        return label
    closest = get_close_matches(_folded(label), {_folded(name): name for name in classes}, n=1)
    meant = next((name for name in classes if closest and _folded(name) == closest[0]), None)
    raise DataError(
        f"{place}: there is no class {label!r}{f'; did you mean {meant}?' if meant else ''}",
        f"classes: {', '.join(classes[:_NAMED])}{', ...' if len(classes) > _NAMED else ''}; {NEVER} for never to be "
        "asked again; a class of its own needs --new-classes",
    )


def _folded(text: str) -> str:
    return " ".join(clean(text).replace("_", " ").casefold().split())
