"""What to do with the answers to questions: train on them, or ask again while a class has no label."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.errors import DataError, MmsslError, UsageError

if TYPE_CHECKING:
    from pipeline.shards.shard import Shard
    from trainer.inference.suggestions import TrainedOn
    from trainer.serving.labelling import NextStep

_MODEL = "sshmvae-kl"  # that learns from answers to a model that learns no labels
_OF_DATA = ("--data", "--split", "--labels", "--labels-from", "--modality", "--root")
_NAMED = 5  # classes without a label that are named


def next_step(
    runs: Sequence[Path],
    models: "Sequence[TrainedOn]",
    shard: "Shard",
    earlier: Sequence[Path],
    file: Path,
    again: Sequence[str],
    new_classes: bool,
) -> "Callable[[Mapping[int, str]], NextStep]":
    """Says what to do with the answers in a file, given what they are.

    Args:
        runs: the folders of what asked, and `models`, what they hold.
        shard: with the answers of the models' settings in it.
        earlier: files that were answered before.
        again: options with which more rows are asked about.
    """
    from pipeline.shards.schema import NEVER
    from pipeline.sources.questions import read_answers
    from trainer.data.selection import chosen_rows
    from trainer.serving.labelling import NextStep

    files = [*earlier, file]
    settings = models[0].settings[0]
    train = command_to_train_on(runs[0], files, new_classes)
    if settings.learns_labels:  # then every class has a label already
        return lambda _: NextStep("train on the answers", train)
    try:
        labels = shard.train.labels[chosen_rows(settings, shard)]
    except (DataError, UsageError):  # asks for labels that the data does not have
        labels = shard.train.labels[:0]
    seen = {shard.classes[k] for k in labels.tolist() if k >= 0}
    for path in earlier:
        seen |= {answer.label for answer in read_answers(path, shard, new_classes=True).values() if answer.label}
    more = ["mmssl", "label", *map(str, runs)]
    for path in files:
        more += ["--labels-from", str(path)]
    more += ["--out", str(_next_name(file)), *again, *(["--new-classes"] if new_classes else [])]

    def step(answers: Mapping[int, str]) -> NextStep:
        unseen = [name for name in shard.classes if name not in seen | (set(answers.values()) - {NEVER})]
        if not unseen:
            return NextStep("train on the answers", train)
        names = ", ".join(unseen[:_NAMED]) + (f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else "")
        return NextStep(f"ask about more rows, since none is labelled {names} yet", shlex.join(more))

    return step


def command_to_train_on(folder: Path, files: Sequence[Path], new_classes: bool) -> str:
    """The command that trained a run, with these answers; its beginning alone where the run does not say.

    A model that learns no labels gives way to one that does, on the same data.
    """
    from trainer.training.run_folder import Run
    from trainer.training.run_listing import SETTINGS

    words = ["mmssl", "train", "..."]
    if (folder / SETTINGS).exists():
        try:
            run = Run.open(folder)
            made = shlex.split(str(run.provenance().get("command", "")))
        except (MmsslError, ValueError):  # no record, or an older one that does not quote its words
            made = []
        if made[:2] == words[:2]:
            words = _without_out(word for word in made if word != "--json")
            if not run.settings.learns_labels:
                words = ["mmssl", "train", _MODEL, *_of_data(words)]
    for file in files:
        words += ["--labels-from", str(file)] if str(file) not in words else []
    return shlex.join([*words, *(["--new-classes"] if new_classes and "--new-classes" not in words else [])])


def _without_out(words: Iterable[str]) -> list[str]:
    """A command without the folder of its run, which holds that run already."""
    kept, left = list[str](), iter(words)
    for word in left:
        if word == "--out":
            next(left, None)
        elif not word.startswith("--out="):
            kept.append(word)
    return kept


def _of_data(words: Sequence[str]) -> list[str]:
    """The options of a command that say what it trains on."""
    kept = list[str]()
    for word, value in zip(words, [*words[1:], ""], strict=True):
        name, is_joined, _ = word.partition("=")
        if name in _OF_DATA:
            kept += [word] if is_joined else [word, value]
    return kept


def _next_name(file: Path) -> Path:
    """ask.csv -> ask-2.csv -> ask-3.csv."""
    stem, dash, number = file.stem.rpartition("-")
    if dash and number.isdecimal():
        return file.with_stem(f"{stem}-{int(number) + 1}")
    return file.with_stem(f"{file.stem}-2")
