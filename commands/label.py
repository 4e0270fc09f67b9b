"""`mmssl label`."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands import messages
from commands.app import app
from commands.asking import Answered, Count, PerGroup, Runs, SampleSeed, write_asked
from commands.label_files import NewClasses
from commands.options import OUTPUT, WORKSPACE, Device, DeviceOption, Root
from commands.run_folders import RunData, places
from commands.serve import Host, Port, Token, check_access, check_installed
from pipeline.runtime.errors import MmsslError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.shards.shard import Shard
    from pipeline.sources.questions import Question
    from trainer.serving.labelling import Labelling


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
    listening = listen(host, port)
    chosen_device = choose_device(device)
    there = file.exists()
    if there:
        _, shard = open_models(run, looked, chosen_device)
        questions = read_questions(file, shard)
    else:
        questions, shard = write_asked(
            file, run, looked, chosen_device, root,
            count=count, per_group=per_group, labels_from=labels_from or [], pictures=True, seed=seed,
        )  # fmt: skip
    command = command_to_train_on(run[0], [*(labels_from or []), file], new_classes)
    server = make_labelling(file, questions, shard, command, new_classes, token)
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
        messages.say("train on them:")
        messages.say(command)


def make_labelling(
    file: Path,
    questions: "Sequence[Question]",
    shard: "Shard",
    command: str,
    new_classes: bool = False,
    token: str | None = None,
) -> "Labelling":
    """What asks these questions, and keeps the answers in the CSV.

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
    return Labelling(asked, labels, shard, keep, understand, str(file), folder, command, new_classes, token)


def command_to_train_on(folder: Path, files: "Sequence[Path]", new_classes: bool) -> str:
    """The command that trained a run, with these answers; its beginning alone where the run does not say."""
    from trainer.training.run_folder import Run
    from trainer.training.run_listing import SETTINGS

    words = ["mmssl", "train", "..."]
    if (folder / SETTINGS).exists():
        try:
            made = shlex.split(str(Run.open(folder).provenance().get("command", "")))
        except (MmsslError, ValueError):  # no record, or an older one that does not quote its words
            made = []
        if made[:2] == words[:2]:
            words = [word for word in made if word != "--json"]
    for file in files:
        words += ["--labels-from", str(file)] if str(file) not in words else []
    return shlex.join([*words, *(["--new-classes"] if new_classes and "--new-classes" not in words else [])])
