"""`mmssl doubts`."""

from pathlib import Path
from typing import Annotated

import typer

from commands import messages, progress
from commands.app import app
from commands.asking import write_illustrated
from commands.messages import Table
from commands.options import MODEL, OUTPUT, WORKSPACE, Device, DeviceOption, Jobs, Json, Root
from commands.run_folders import RunData, check_used, places


@app.command()
def doubts(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, help="Number of labels to list.", rich_help_panel=OUTPUT)
    ] = 20,
    file: Annotated[
        Path, typer.Option("--out", help="CSV to write, with a column label for corrections.", rich_help_panel=OUTPUT)
    ] = Path("doubts.csv"),
    parts: Annotated[
        int,
        typer.Option(
            min=2,
            help="Number of parts of the labels; a model is trained without each.",
            rich_help_panel=MODEL,
        ),
    ] = 5,
    pictures: Annotated[
        bool, typer.Option(help="Write the rows' pictures beside the CSV, where there are any.", rich_help_panel=OUTPUT)
    ] = True,
    jobs: Jobs = 1,
    data: RunData = None,
    device: DeviceOption = Device.auto,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Say which given labels are probably wrong: those that models trained without them find improbable.

    Trains the run again without each part of its labels; the same command resumes after an interruption, and trains
    nothing once everything is done. Correct what is wrong in the CSV, and train with --labels-from.
    """
    from commands.label_files import check_not_answered
    from pipeline.runtime.devices import choose_device
    from pipeline.runtime.failures import raise_if_failed
    from pipeline.sources.questions import Question
    from trainer.inference.asking import open_models
    from trainer.inference.doubts import doubts as find_doubts
    from trainer.inference.loading import shard_of
    from trainer.jobs.crossfit import without_each_part
    from trainer.jobs.executors import choose_executor, train_stacks
    from trainer.jobs.stacks import make_stacks
    from trainer.training.run_folder import Run

    executor, chosen_device = choose_executor(jobs), choose_device(device)
    check_not_answered(file)
    looked = places(data, root)
    opened = Run.open(run, looked)
    check_used(looked, run, {opened.settings.digest})
    shard = shard_of(opened)
    runs = without_each_part(opened, shard, parts)
    stacks = make_stacks(runs, gpu=chosen_device.type == "cuda", jobs=jobs)
    with progress.watching() as watch, progress.finishing(stacks) as finished:
        raise_if_failed(train_stacks(stacks, device, watch, executor, finished), max(1, len(stacks)))
    models, shard = open_models([part.folder for part in runs], [shard.path], chosen_device)
    found = find_doubts(models, shard)
    listed = found[:count]
    classes, names = shard.classes, models[0].network.names
    questions = [
        Question.about(
            shard,
            one.row,
            predicted=classes[one.probable],
            probability=one.other,
            disagreement=one.disagreement,
            others={"given": classes[one.given], "given_probability": f"{one.probability:.4g}"}
            | {f"{name}_predicted": classes[one.opinions[name]] for name in names if name in one.opinions},
        )
        for one in listed
    ]
    write_illustrated(file, questions, shard, root if pictures else None)
    improbable = sum(one.margin < 0 for one in found)
    if as_json:
        rows = [
            {
                "row": one.row,
                "id": str(shard.train.ids[one.row]),
                "given": classes[one.given],
                "given_probability": one.probability,
                "probable": classes[one.probable],
                "probability": one.other,
                "opinions": {name: classes[k] for name, k in one.opinions.items()},
            }
            for one in listed
        ]
        messages.as_json({"file": str(file.resolve()), "judged": len(found), "improbable": improbable, "rows": rows})
        return
    table = Table("row", "id", "given", "(%)", "more probable", "(%)", *names[: 0 if len(names) > _FEW else None])
    for one in listed:
        alone = [classes[one.opinions[name]] if name in one.opinions else "-" for name in names]
        table.add_row(
            str(one.row), str(shard.train.ids[one.row]), classes[one.given], messages.percent(one.probability),
            classes[one.probable], messages.percent(one.other), *(alone if len(names) <= _FEW else []),
        )  # fmt: skip
    messages.show(table)
    messages.say(f"of {len(found)} labels that could be judged, another class is more probable for {improbable}")
    messages.say("fill its column label where a label is wrong, then train with --labels-from:")
    messages.say_path(file)


_FEW = 4  # modalities whose own opinions fit in a table
