"""The labels that a person filled into the CSV of `mmssl suggest`, as a setting of runs."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import DATA
from pipeline.runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from pipeline.shards.shard import Shard

LabelsFrom = Annotated[
    list[Path] | None,
    typer.Option(
        "--labels-from",
        help="CSV of `mmssl suggest` with its label column filled: these labels join those of "
        "--labels, and replace the data's own for their rows. May be repeated; a later file wins.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
NewClasses = Annotated[
    bool,
    typer.Option(
        "--new-classes",
        help="Let --labels-from name classes that the data does not have yet.",
        rich_help_panel=DATA,
    ),
]
_log = logging.getLogger("mmssl")


def read_label_files(
    paths: Sequence[Path], shards: "Sequence[Shard]", new_classes: bool = False
) -> tuple[tuple[int, str], ...]:
    """The answers in these files as the setting `answers`.

    Raises:
        UsageError: there are several shards, of which each would need rows of its own.
        DataError: a file cannot be read, is about other rows, or names an unknown class; or none has an answer.
    """
    from pipeline.shards.schema import NEVER
    from pipeline.sources.questions import read_answers

    if len(shards) != 1:
        raise UsageError("--labels-from is about the rows of one shard", "choose one --split, and train split by split")
    answers: dict[int, str] = {}
    for path in paths:
        found = {row: answer.label or NEVER for row, answer in read_answers(path, shards[0], new_classes).items()}
        changed = sum(answers.get(row, label) != label for row, label in found.items())
        labelled = sum(label != NEVER for label in found.values())
        _log.info(
            "%s: %d label%s%s%s",
            path,
            labelled,
            "" if labelled == 1 else "s",
            f", {len(found) - labelled} never to be asked again" if labelled < len(found) else "",
            f"; {changed} replace those of an earlier file" if changed else "",
        )
        answers |= found
    if not answers:
        raise DataError(f"{paths[-1]}: no row has a label yet", "fill its column label with classes")
    return tuple(sorted(answers.items()))


def check_not_answered(path: Path) -> None:
    """Refuses to replace a CSV that holds a person's work.

    Raises:
        UsageError: the file has answers, or is not a list of questions at all.
    """
    from pipeline.sources.csv_tables import read_table

    if not path.exists():
        return
    try:
        labels = {name.casefold(): texts for name, texts in read_table(path).columns.items()}.get("label")
    except DataError:
        labels = None
    if labels is None:
        raise UsageError(f"--out {path}: the file exists, and is not a list of rows to label", "choose another --out")
    if any(labels):
        raise UsageError(
            f"--out {path}: the file has {sum(map(bool, labels))} answers, which would be lost",
            "choose another --out; train on the answers with --labels-from",
        )
