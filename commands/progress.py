"""Progress of long work: a bar with rate and time left on a terminal, plain log lines elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from commands import messages
from pipeline.runtime.text import visible

if TYPE_CHECKING:
    from trainer.jobs.stacks import Stack

_log = logging.getLogger("mmssl")


def _text(template: str) -> TextColumn:
    """A column of text that is shown as it is."""
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True))


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a count: as a bar on a terminal, elsewhere as a log line after every tenth of the work."""
    if not messages.err.is_watched:
        tenths = 0

        def log(done: int, total: int) -> None:
            nonlocal tenths
            if done * 10 // total > tenths:
                _log.info("%d of %d %s", done, total, what)
            tenths = done * 10 // total

        yield log
        return
    columns = (BarColumn(bar_width=24), _text("{task.completed}/{task.total} {task.description}"))
    with Progress(*columns, TimeElapsedColumn(), _text("left"), TimeRemainingColumn(), console=messages.err) as bar:
        task = bar.add_task(visible(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def extracting() -> Iterator[Callable[[str, int, int], None] | None]:
    """Shows one extraction task at a time as a bar on a terminal; None elsewhere, where the library logs it anyway."""
    if not messages.err.is_watched:
        yield None
        return
    columns = (
        _text("{task.description}"),
        BarColumn(bar_width=24),
        _text("{task.completed}/{task.total}"),
        _text("{task.fields[rate]}"),
        _text("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages.err) as bar:
        shown: dict[str, tuple[TaskID, float, int]] = {}  # by description: the bar, when it began, and at which count

        def show(description: str, done: int, total: int) -> None:
            if description not in shown:
                for task, _, _ in shown.values():
                    bar.remove_task(task)
                shown.clear()
                task = bar.add_task(visible(description), total=total, completed=done, rate="")
                shown[description] = (task, time.monotonic(), done)
            task, began, first = shown[description]
            seconds = time.monotonic() - began
            rate = f"{(done - first) / seconds:.2f}/s" if done > first and seconds > 0 else ""
            bar.update(task, completed=done, rate=rate)

        yield show


class Watch:
    """Shows training: a bar with rate and time left on a terminal, one line per epoch elsewhere."""

    def __init__(self, bar: Progress | None) -> None:
        self.bar = bar
        self.task: Any = None
        self.started: tuple[float, int] | None = None
        self.last = 0

    def step(self, done: int, total: int) -> None:
        if self.started is None or done <= self.last:  # another stack begins
            self.started = (time.monotonic(), done)  # the first step is over, so the clock starts with the second
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
    """Gives training something to report its progress to."""
    if not messages.err.is_watched:
        yield Watch(None)
        return
    columns = (
        BarColumn(bar_width=24),
        _text("{task.percentage:>3.0f} %"),
        _text("{task.fields[rate]}"),
        TimeElapsedColumn(),
        _text("left"),
        TimeRemainingColumn(),
        _text("{task.fields[summary]}"),
    )
    with Progress(*columns, console=messages.err) as bar:
        yield Watch(bar)


@contextmanager
def finishing(todo: Sequence["Stack"]) -> Iterator[Callable[[int, "Stack"], None]]:
    """Logs each finished stack, with the number of stacks done and the estimated time left."""
    began = time.monotonic()
    total, finished_cost = sum(stack.cost for stack in todo), 0.0
    several = len(todo) > 1
    if not todo:
        _log.info("nothing is left to train")
    if several:
        _log.info("%d runs to train, in %d stacks", sum(len(stack.folders) for stack in todo), len(todo))

    def finished(done: int, stack: "Stack") -> None:
        nonlocal finished_cost
        finished_cost += stack.cost
        left = (time.monotonic() - began) * (total - finished_cost) / finished_cost / 60
        if several:
            _log.info("%d of %d stacks: %s; about %.0f min left", done, len(todo), stack, left)

    yield finished
