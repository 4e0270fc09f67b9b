"""The questions that `mmssl suggest` and `mmssl label` ask: chosen by models, with their rows' pictures, in a CSV."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import DATA, MODEL, OUTPUT

if TYPE_CHECKING:
    from pipeline.shards.shard import Shard
    from pipeline.sources.questions import Question
    from trainer.inference.suggestions import TrainedOn

Runs = Annotated[
    list[Path], typer.Argument(help="Folders of finished runs, or of bundles; several are asked together.")
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Number of rows to suggest.", rich_help_panel=OUTPUT)]
PerGroup = Annotated[
    int | None,
    typer.Option(
        min=1, help="Most rows of one group (an object, a recording).", show_default="any number", rich_help_panel=MODEL
    ),
]
Answered = Annotated[
    list[Path] | None,
    typer.Option(
        "--labels-from",
        help="CSV that was answered since the runs were trained: its rows count as labelled. May be repeated.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
SampleSeed = Annotated[int, typer.Option(min=0, help="Seed of the samples of large data.", rich_help_panel=MODEL)]


def write_asked(
    file: Path,
    models: "Sequence[TrainedOn]",
    shard: "Shard",
    root: Path,
    *,
    count: int,
    per_group: int | None,
    labels_from: Sequence[Path],
    pictures: bool,
    seed: int,
) -> "list[Question]":
    """Chooses rows to ask about, and writes them as a CSV with their pictures beside it.

    Args:
        models, shard: as `trainer.inference.asking.open_models` gives them.

    Raises:
        DataError, UsageError: as `trainer.inference.suggestions.suggest`.
        StorageError: the disk is full or refuses.
    """
    from pipeline.sources.questions import Question, read_answers
    from trainer.inference.suggestions import suggest

    answers: dict[int, str | None] = {}
    for path in labels_from:
        answers |= {row: answer.label for row, answer in read_answers(path, shard, new_classes=True).items()}
    found = suggest(models, shard, count, per_group=per_group, answers=answers, seed=seed)
    questions = [
        Question.about(
            shard,
            one.row,
            predicted="" if one.predicted is None else shard.classes[one.predicted],
            probability=one.probability,
            disagreement=one.disagreement,
            distance=one.distance,
        )
        for one in found
    ]
    return write_illustrated(file, questions, shard, root if pictures else None)


def write_illustrated(
    file: Path, questions: "Sequence[Question]", shard: "Shard", root: Path | None
) -> "list[Question]":
    """Writes questions as a CSV with their rows' pictures beside it, and returns them with the pictures' names.

    Args:
        root: the workspace, for `write_thumbnails`; None to write no pictures.

    Raises:
        StorageError: the disk is full or refuses.
    """
    from commands.thumbnails import write_thumbnails
    from pipeline.sources.questions import write_questions

    if root is not None:
        files = write_thumbnails(file, shard, [one.row for one in questions], root)
        questions = [replace(one, files=names) for one, names in zip(questions, files, strict=True)]
    write_questions(file, questions, shard)
    return list(questions)
