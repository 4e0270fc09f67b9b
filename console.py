"""What commands show: messages, how far the work is, tables. rich is used here and in cli.py alone."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

if TYPE_CHECKING:
    from pipeline.datasets.catalogue import Known
    from pipeline.runtime.errors import MmsslError
    from pipeline.shards.summary import Description
    from trainer.evaluation.metrics import Evaluation
    from trainer.jobs.stacks import PlannedRun, Stack
    from trainer.reporting.comparison import ExperimentResult
    from trainer.reporting.run_tables import ResultTable
    from trainer.training.run_folder import Run

out = Console()
err = Console(stderr=True)
_log = logging.getLogger("mmssl")


def say(text: str) -> None:
    """One line of a command's result: as it is, and never wrapped."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def complain(error: "MmsslError") -> None:
    """An error and its hint, a line each, on the error stream."""
    err.print(f"[bold red]error:[/] {_plain(error.message)}", highlight=False, soft_wrap=True)
    if error.hint:
        err.print(f"[dim]hint:[/]  {_plain(error.hint)}", highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def show_log() -> None:
    """Sends what the library logs to the error stream: bare on a terminal, with the time elsewhere."""
    handler: logging.Handler
    if err.is_terminal:
        handler = RichHandler(console=err, show_time=False, show_level=False, show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in ("mmssl", "pipeline", "trainer"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]


# --- how far the work is ---------------------------------------------------------------------------------------------


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a line at every tenth."""
    if not err.is_terminal:

        def log(done: int, total: int) -> None:
            if done == total or done * 10 // total > (done - 1) * 10 // total:
                _log.info("%d of %d %s", done, total, what)

        yield log
        return
    columns = (BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total} {task.description}"))
    with Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def extracting() -> Iterator[Callable[[str, int, int], None] | None]:
    """On a terminal a bar of what is under way, one after the other; None elsewhere, where the log's lines say it."""
    if not err.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        shown: dict[str, tuple[TaskID, float, int]] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                for task, _, _ in shown.values():
                    bar.remove_task(task)
                shown.clear()
                shown[what] = (bar.add_task(what, total=total, completed=done, rate=""), time.monotonic(), done)
            task, began, first = shown[what]
            seconds = time.monotonic() - began
            rate = f"{(done - first) / seconds:.2f}/s" if done > first and seconds > 0 else ""
            bar.update(task, completed=done, rate=rate)

        yield show


class Watch:
    """Shows training: a bar with rate and time left on a terminal, a line an epoch elsewhere."""

    def __init__(self, bar: Progress | None) -> None:
        self.bar = bar
        self.task: Any = None
        self.started: tuple[float, int] | None = None
        self.last = 0

    def step(self, done: int, total: int) -> None:
        if self.started is None or done <= self.last:  # another stack begins
            self.started = (time.monotonic(), done)  # its first step is behind it: the clock begins with the second
            if self.bar is not None:
                self.task = self.bar.add_task("training", total=total, completed=done - 1, rate="", summary="")
        self.last = done
        self.seconds = time.monotonic() - self.started[0]
        steps = done - self.started[1]
        self.rate = steps / self.seconds if steps and self.seconds > 0 else 0.0
        self.left = (total - done) / self.rate if self.rate > 0 else 0.0
        if self.bar is not None and self.rate > 0:
            self.bar.update(self.task, completed=done, rate=f"{self.rate:.1f} steps/s")

    def epoch(self, epoch: int, epochs: int, summary: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, summary=f"epoch {epoch}/{epochs}: {summary}")
        else:
            pace = f" ({self.rate:.1f} steps/s, {self.left:.0f} s left)" if self.rate > 0 else ""
            _log.info("epoch %d/%d: %s%s", epoch, epochs, summary, pace)


@contextmanager
def watching() -> Iterator[Watch]:
    """What training reports to while it runs."""
    if not err.is_terminal:
        yield Watch(None)
        return
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[summary]}"),
    )
    with Progress(*columns, console=err) as bar:
        yield Watch(bar)


# --- results ---------------------------------------------------------------------------------------------------------


def as_json(value: Any) -> None:
    """A result for programs."""
    out.print_json(json.dumps(value, default=str))


def data_sets(known: Sequence["Known"]) -> None:
    table = Table("name", "what", "MB", "licence", "at hand")
    for one in known:
        size = f"{one.size / 1e6:,.0f}" if one.size else "-"
        table.add_row(one.name, one.title, size, one.licence, "-" if one.place is None else str(one.place))
    out.print(table)


def shard(found: "Description") -> None:
    """What is in a shard: its modalities, its classes and its provenance."""
    split = "" if found.split is None else f", split {found.split}"
    labelled = "not fixed by the data" if found.labelled is None else str(found.labelled)
    say(f"{found.path}: {found.dataset}{split}")
    say(f"{found.train_rows} training and {found.test_rows} test examples; labelled: {labelled}")
    table = Table("modality", "width", "distribution", "smallest", "mean", "largest")
    for m in found.modalities:
        table.add_row(m.name, str(m.width), m.distribution, f"{m.min:.4g}", f"{m.mean:.4g}", f"{m.max:.4g}")
    out.print(table)
    table = Table("class", "training", "test", "labelled")
    for c in (*found.classes, *([found.unknown] if found.unknown.train or found.unknown.test else [])):
        table.add_row(c.name, str(c.train), str(c.test), "-" if c.labelled is None else str(c.labelled))
    out.print(table)
    say(f"digest {found.digest}{'' if found.digest_recorded else ' (computed, not recorded)'}")
    as_json(found.provenance)


def runs(found: Sequence["Run"]) -> None:
    """Runs, how far they are, and their accuracies."""
    table = Table(Column("run", overflow="fold"), "epochs", "accuracy (%)")
    for run in found:
        epochs = f"{len(run.metrics())} of {run.settings.epochs}{' rounds' if run.settings.cotraining else ''}"
        table.add_row(run.folder.name, epochs, _accuracies(run) if run.done else "[yellow]not done[/]")
    out.print(table)


def _accuracies(run: "Run") -> str:
    scores = run.result().scores
    return ", ".join(
        f"{s.given}{f' ({s.completion})' if s.completion == 'iterative' else ''} {100 * s.accuracy:.2f}" for s in scores
    )


def evaluation(title: str, result: "Evaluation") -> None:
    """One run's scores for every subset of modalities."""
    from trainer.evaluation.metrics import COMPLETION_TITLES

    table = Table("given", "how", "accuracy (%)", "nll", "ece", title=title, title_justify="left")
    for score in result.scores:
        table.add_row(
            score.given,
            COMPLETION_TITLES[score.completion],
            f"{100 * score.accuracy:.2f}",
            f"{score.nll:.3f}",
            f"{score.ece:.3f}",
        )
    out.print(table)
    say(f"ELBO per test example: {'-' if result.elbo is None else f'{result.elbo:.2f} nats'}")


def results(found: "ResultTable", done: Sequence["Run"]) -> None:
    """A table of trained runs, and where they lie."""
    several = any(row.setting for row in found.rows)
    table = Table(*(["setting"] if several else []), "given", "how", "accuracy (%)", "nll", "ece", "replicas")
    before = ""
    for row in found.rows:
        spread = "" if row.accuracy_std is None else f" ± {row.accuracy_std:.2f}"
        cells = [row.given, row.completion, f"{row.accuracy:.2f}{spread}", f"{row.nll:.3f}", f"{row.ece:.3f}"]
        if several and before and row.setting != before:
            table.add_section()
        table.add_row(*([row.setting if row.setting != before else ""] if several else []), *cells, str(row.replicas))
        before = row.setting
    say(found.common)
    out.print(table)
    for run in done:
        say(str(run.folder.resolve()))


# --- demo ------------------------------------------------------------------------------------------------------------


def demo_step(number: int, what: str, real: str) -> None:
    """What the demo does next, and the command that does it with real data."""
    out.print(f"{number}/4  {_plain(what)}. For real: [bold]{_plain(real)}[/]", highlight=False, soft_wrap=True)


def failures(found: "ResultTable", classes: int) -> None:
    """What the models can do with both cameras, and with each alone."""
    cameras = {"x+w": "both", "x": "RGB alone", "w": "depth alone"}
    table = Table("model", "cameras", "for the missing one", "accuracy (%)")
    before = ""
    for row in sorted(found.rows, key=lambda row: (row.setting, row.completion != "all given")):
        if before and row.setting != before:
            table.add_section()
        completion = "-" if row.completion == "all given" else row.completion
        table.add_row(
            row.setting if row.setting != before else "", cameras[row.given], completion, f"{row.accuracy:.1f}"
        )
        before = row.setting
    count = found.rows[0].replicas
    say(
        f"{found.common}; objects that no model has seen, {classes} categories (chance {100 / classes:.0f} %), "
        f"mean over {count} split{'s' if count > 1 else ''}"
    )
    out.print(table)
    say(
        "The features come from random weights and the numbers are the rendered sample's: they show how the models "
        "work, and say nothing of the paper's data."
    )


# --- reproduce -------------------------------------------------------------------------------------------------------


def planned(work: Sequence["PlannedRun"], todo: Sequence["Stack"], in_json: bool) -> None:
    """The runs that experiments need, and how far each is."""
    from trainer.jobs.stacks import status

    if in_json:
        as_json([{"folder": one.folder.resolve(), "state": status(one)} for one in work])
        return
    table = Table(Column("run", overflow="fold"), "state")
    for one in work:
        table.add_row(one.folder.name, status(one))
    out.print(table)
    missing = sum(len(part.folders) for part in todo)
    say(f"{len(work)} runs, {len(work) - missing} of them done; {missing} to train, in {len(todo)} stacks")


@contextmanager
def finishing(todo: Sequence["Stack"]) -> Iterator[Callable[[int, "Stack"], None]]:
    """Says which stack is done, how many are left, and about how long they take."""
    began = time.monotonic()
    total, behind = sum(part.cost for part in todo), 0.0
    _log.info("%d runs to train, in %d stacks", sum(len(part.folders) for part in todo), len(todo))

    def finished(done: int, part: "Stack") -> None:
        nonlocal behind
        behind += part.cost
        left = (time.monotonic() - began) * (total - behind) / behind / 60
        _log.info("%d of %d stacks: %s; about %.0f min left", done, len(todo), part, left)

    yield finished


def outcomes(found: Sequence["ExperimentResult"], paths: Sequence[Path], in_json: bool) -> None:
    """Tables beside the paper's, and where they were written."""
    from trainer.reporting.comparison_tables import legend, text

    if in_json:
        as_json([outcome.model_dump(mode="json") for outcome in found])
        return
    for outcome in found:
        out.print(f"[bold]{_plain(f'{outcome.name}: {outcome.title}')}[/]", highlight=False, soft_wrap=True)
        for line in legend(outcome):
            say(line)
        for block in outcome.blocks:
            written = text(block, outcome.comparable)
            beside = ("paper", "ours (runs)", "difference") if outcome.printed else ("ours (runs)",)
            table = Table("", "", *beside, "", title=block.title, title_justify="left")
            for name, cells in written.rows:
                shown = [(column, cell) for column, cell in zip(block.columns, cells, strict=True) if cell is not None]
                for number, (column, cell) in enumerate(shown):
                    difference = f"[red]{cell.difference} low[/]" if cell.low else cell.difference
                    first = "" if number else _plain(name)
                    values = (cell.paper, cell.ours, difference) if outcome.printed else (cell.ours,)
                    table.add_row(first, column, *values, cell.mark)
                if len(block.columns) > 1:
                    table.add_section()
            out.print(table)
            for number, note in enumerate(written.notes, 1):
                say(f"†{number}: {note}")
        out.print()
    for path in paths:
        say(str(path.resolve()))
