"""`mmssl suggest`."""

from pathlib import Path
from typing import Annotated

import typer

from commands import messages
from commands.app import app
from commands.asking import Answered, Count, PerGroup, Runs, SampleSeed, write_asked
from commands.messages import Table
from commands.options import OUTPUT, WORKSPACE, Device, DeviceOption, Json, Root
from commands.run_folders import RunData, check_used, places


@app.command()
def suggest(
    run: Runs,
    count: Count = 20,
    file: Annotated[
        Path, typer.Option("--out", help="CSV to write, with a column label to fill in.", rich_help_panel=OUTPUT)
    ] = Path("ask.csv"),
    per_group: PerGroup = None,
    labels_from: Answered = None,
    pictures: Annotated[
        bool, typer.Option(help="Write the rows' pictures beside the CSV, where there are any.", rich_help_panel=OUTPUT)
    ] = True,
    seed: SampleSeed = 0,
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
    from pipeline.runtime.devices import choose_device
    from trainer.inference.asking import open_models

    chosen_device = choose_device(device)
    check_not_answered(file)
    looked = places(data, root)
    models, shard = open_models(run, looked, chosen_device)
    check_used(looked, run[0], {shard.digest})
    questions = write_asked(
        file, models, shard, root,
        count=count, per_group=per_group, labels_from=labels_from or [], pictures=pictures, seed=seed,
    )  # fmt: skip
    if as_json:
        messages.as_json({"file": str(file.resolve()), "rows": [asdict(question) for question in questions]})
        return
    opinions = any(one.predicted for one in questions)
    table = Table(
        "row", "id", *(("predicted", "probability (%)", "disagreement (nats)") if opinions else ()), "distance"
    )
    for one in questions:
        said = (one.predicted or "-", messages.percent(one.probability), _number(one.disagreement))
        table.add_row(str(one.row), one.id, *(said if opinions else ()), _number(one.distance))
    messages.show(table)
    if len(questions) < count:
        messages.say(f"there are no more: {len(questions)} of {count} rows")
    messages.say("fill its column label (? for never to be asked again), then train with --labels-from:")
    messages.say_path(file)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
