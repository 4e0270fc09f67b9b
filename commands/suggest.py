"""`mmssl suggest`."""

from pathlib import Path
from typing import Annotated

import typer

from commands import messages
from commands.app import app
from commands.messages import Table
from commands.options import DATA, MODEL, OUTPUT, WORKSPACE, Device, DeviceOption, Json, Root
from commands.run_folders import RunData, places


@app.command()
def suggest(
    run: Annotated[
        list[Path], typer.Argument(help="Folders of finished runs, or of bundles; several are asked together.")
    ],
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, help="Number of rows to suggest.", rich_help_panel=OUTPUT)
    ] = 20,
    file: Annotated[
        Path, typer.Option("--out", help="CSV to write, with a column label to fill in.", rich_help_panel=OUTPUT)
    ] = Path("ask.csv"),
    per_group: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most rows of one group (an object, a recording).",
            show_default="any number",
            rich_help_panel=MODEL,
        ),
    ] = None,
    labels_from: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels-from",
            help="CSV that was answered since the runs were trained: its rows count as labelled. May be repeated.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Write the rows' pictures beside the CSV, where there are any.", rich_help_panel=OUTPUT)
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples of large data.", rich_help_panel=MODEL)] = 0,
    data: RunData = None,
    device: DeviceOption = Device.auto,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Say which unlabelled rows should be labelled next, as a CSV to fill in for `mmssl train --labels-from`.

    Without any labels yet, ask a model that needs none: mmssl train jmvae --labels 0.
    """
    from dataclasses import asdict

    from commands.label_files import check_not_answered
    from commands.thumbnails import write_thumbnails
    from pipeline.runtime.devices import choose_device
    from pipeline.sources.questions import Question, read_answers, write_questions
    from trainer.inference.asking import open_models
    from trainer.inference.suggestions import suggest as suggest_rows

    chosen_device = choose_device(device)
    check_not_answered(file)
    models, shard = open_models(run, places(data, root), chosen_device)
    answers: dict[int, str | None] = {}
    for path in labels_from or []:
        answers |= {row: answer.label for row, answer in read_answers(path, shard, new_classes=True).items()}
    found = suggest_rows(models, shard, count, per_group=per_group, answers=answers, seed=seed)
    files = write_thumbnails(file, shard, [one.row for one in found], root) if pictures else [{} for _ in found]
    questions = [
        Question(
            row=one.row,
            id=str(shard.train.ids[one.row]),
            group="" if shard.train.groups is None else str(shard.train.groups[one.row]),
            predicted="" if one.predicted is None else shard.classes[one.predicted],
            probability=one.probability,
            disagreement=one.disagreement,
            distance=one.distance,
            files=names,
        )
        for one, names in zip(found, files, strict=True)
    ]
    write_questions(file, questions, shard)
    if as_json:
        messages.as_json({"file": str(file.resolve()), "rows": [asdict(question) for question in questions]})
        return
    table = Table("row", "id", "predicted", "probability (%)", "disagreement (nats)", "distance")
    for one in questions:
        table.add_row(
            str(one.row),
            one.id,
            one.predicted or "-",
            messages.percent(one.probability),
            *("-" if value is None else f"{value:.2f}" for value in (one.disagreement, one.distance)),
        )
    messages.show(table)
    if len(questions) < count:
        messages.say(f"there are no more: {len(questions)} of {count} rows")
    messages.say("fill its column label (? for never to be asked again), then train with --labels-from:")
    messages.say_path(file)
