"""`mmssl label`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands import messages
from commands.app import app
from commands.asking import Answered, Count, PerGroup, Runs, SampleSeed, write_asked
from commands.label_files import NewClasses
from commands.next_step import next_step
from commands.options import OUTPUT, WORKSPACE, Device, DeviceOption, Root
from commands.run_folders import RunData, check_used, places
from commands.serve import Host, Port, Token, check_access, check_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.shards.shard import Shard
    from pipeline.sources.questions import Question
    from trainer.serving.labelling import Labelling, NextStep


@app.command()
def label(
    run: Runs,
    count: Count = 20,
    file: Annotated[
        Path,
        typer.Option(
            "--out",
            help="CSV that holds the questions and the answers; one that exists is gone on with.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("ask.csv"),
    per_group: PerGroup = None,
    labels_from: Answered = None,
    new_classes: NewClasses = False,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    seed: SampleSeed = 0,
    data: RunData = None,
    device: DeviceOption = Device.auto,
    root: Root = WORKSPACE,
) -> None:
    """Label the rows that `mmssl suggest` would ask about, one by one on a page, with a key for each class.

    Every answer is in the CSV before the next question is shown. Ctrl-C stops; the same command goes on.
    """
    check_installed("label")
    check_access(host, token)
    from pipeline.runtime.devices import choose_device
    from pipeline.shards.schema import NEVER
    from pipeline.sources.questions import read_questions
    from trainer.inference.asking import open_models
    from trainer.serving.server import listen
    from trainer.serving.server import run as run_server

    looked = places(data, root)
    chosen_device = choose_device(device)
    there = file.exists()
    models, shard = open_models(run, looked, chosen_device)
    check_used(looked, run[0], {shard.digest})
    with listen(host, port) as listening:
        if there:
            questions = read_questions(file, shard)
        else:
            questions = write_asked(
                file, models, shard, root,
                count=count, per_group=per_group, labels_from=labels_from or [], pictures=True, seed=seed,
            )  # fmt: skip
        again = ["-n", str(count), *_unless_usual("--root", root, WORKSPACE), *_unless_usual("--data", data, None)]
        step = next_step(run, models, shard, labels_from or [], file, again, new_classes)
        server = make_labelling(file, questions, shard, step, new_classes, token)
        if there:
            messages.say(
                f"going on with {file}: {len(server.labels)} of {len(questions)} rows are answered "
                "(-n, --per-group and --seed are for a new file)"
            )

        def ready(address: str) -> None:
            messages.say(f"{len(questions)} rows to label, at {address}" + ("" if token is None else "/?token=..."))
            messages.say("Ctrl-C stops; answers are kept")
            messages.out.file.flush()

        run_server(server.application(), listening, ready)
    never = sum(answer == NEVER for answer in server.labels.values())
    labels = len(server.labels) - never
    messages.say(f"{labels} labels{f', {never} never to be asked again' if never else ''}, in {file}")
    if labels:
        what, command = step(server.labels)
        messages.say(f"{what}:")
        messages.say(command)


def make_labelling(
    file: Path,
    questions: "Sequence[Question]",
    shard: "Shard",
    step: "Callable[[Mapping[int, str]], NextStep]",
    new_classes: bool = False,
    token: str | None = None,
) -> "Labelling":
    """What asks these questions, and keeps the answers in the CSV.

    Args:
        step: what to do with the answers, given what they are.

    Raises:
        DataError: an answer that the file has is no class of the shard.
    """
    from pipeline.shards.schema import NEVER
    from pipeline.sources.questions import class_of, read_answers, write_questions
    from trainer.serving.labelling import Asked, Labelling

    def understand(text: str, classes: "Sequence[str]") -> str:
        return class_of(text, classes, "the answer", new_classes)

    def keep(labels: "Mapping[int, str]") -> None:
        write_questions(file, [replace(one, label=labels.get(one.row, "")) for one in questions], shard)

    folder = file.absolute().parent
    asked = [
        Asked(
            one.row, one.id, one.group, one.predicted, one.probability, one.others.get("given", ""),
            {m: folder / name for m, name in one.files.items()},
        )
        for one in questions
    ]  # fmt: skip
    labels: dict[int, str] = {}
    for row, answer in read_answers(file, shard, new_classes).items() if file.exists() else ():
        labels[row] = NEVER if answer.label is None else answer.label
    return Labelling(asked, labels, shard, keep, understand, str(file), folder, step, new_classes, token)


def _unless_usual(option: str, value: object, usual: object) -> list[str]:
    return [] if value == usual else [option, str(value)]
