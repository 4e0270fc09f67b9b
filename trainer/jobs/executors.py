"""Where stacks are trained: in this process, in several, or on a Dask cluster."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from pipeline.runtime.cluster import distant_stop, on_worker, run_tasks
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, Interrupted, MmsslError, TrainingError, UsageError
from pipeline.runtime.failures import raise_if_failed
from pipeline.runtime.interrupts import Stop, check_stop, stop_requests
from pipeline.runtime.side_by_side import side_by_side, unless_orphaned
from pipeline.shards.shard import Shard
from trainer.data.answers import answered
from trainer.data.selection import check_examples
from trainer.jobs.plan import Job
from trainer.jobs.stacks import Stack
from trainer.jobs.train import train_all
from trainer.training.progress import Progress, Silent
from trainer.training.run_folder import Run

_log = logging.getLogger(__name__)
_POLL = 0.5  # seconds between two checks for a request to stop
_LOG_INTERVAL = 60.0  # seconds between two log lines about a stack in training


Results = Generator["tuple[Stack, MmsslError | None]", None, None]  # each stack as it ends, and why if it failed


class Executor(Protocol):
    """Where stacks are trained."""

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:
        """Trains all stacks; a failing one does not stop the others.

        Raises:
            Interrupted: SIGTERM or Ctrl-C was received; finished work is saved.
            DataError: processes or workers were lost.
        """
        ...


def choose_executor(jobs: int = 1, scheduler: str | None = None) -> Executor:
    """Chooses this process, several processes on this machine, or a Dask cluster.

    Raises:
        UsageError: `jobs` is below 1, or given with a scheduler.
    """
    if jobs < 1 or (jobs > 1 and scheduler):
        raise UsageError("--jobs must be at least 1, and applies to local processes only: omit it with --scheduler")
    if scheduler is not None:
        return DaskCluster(scheduler)
    return LocalProcesses(jobs) if jobs > 1 else ThisProcess()


def train_stacks(
    todo: Sequence[Stack],
    device: str,
    progress: Progress,
    executor: Executor | None = None,
    finished: Callable[[int, Stack], None] | None = None,
) -> list[MmsslError]:
    """Trains all stacks; a failing one does not stop the others.

    Args:
        device: auto, cpu or cuda, chosen where each stack is trained.
        progress: follows training in this process.
        executor: where to train; None for this process.
        finished: called after each stack with the number of stacks done so far and the stack itself.

    Returns:
        The error of each stack that failed.

    Raises:
        Interrupted: SIGTERM or Ctrl-C was received; finished work is saved.
        DataError: the cluster cannot be reached, or lost its workers.
    """
    if not todo:
        return []
    failures = []
    with closing((executor or ThisProcess()).run(todo, device, progress)) as results:
        for done, (stack, failure) in enumerate(results, 1):
            if failure is not None:
                _log.error("%s failed: %s", stack, failure.message)
                failures.append(failure)
            if finished is not None:
                finished(done, stack)
    return failures


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Sends this process SIGTERM after so many minutes unless the block has ended; training saves its state.

    Raises:
        Interrupted: the time was up before the work was done.
    """
    if minutes is None:
        yield
        return
    time_is_up = threading.Event()

    def stop() -> None:
        time_is_up.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(60 * minutes, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Interrupted:
        if time_is_up.is_set():
            raise Interrupted(
                f"stopped after {minutes:g} minutes, as asked; finished work is kept", "the same command resumes"
            ) from None
        raise
    finally:
        timer.cancel()


def _attempt(stack: Stack, device: str, progress: Progress) -> MmsslError | None:
    """Trains a stack, and returns its error if it failed; of several runs, those that can be trained are."""
    error = _train(stack, device, progress)
    if len(stack.folders) == 1 or not isinstance(error, DataError | TrainingError):
        return error
    failures: list[MmsslError] = []
    good = []
    for run in stack.single_runs():
        fault = _fault(run) if isinstance(error, DataError) else None
        if fault is None:
            good.append(run)
        else:
            failures.append(fault)
    # What fails together and is faultless alone (a replica that diverges, say) has to be found out one by one.
    for part in [stack.of(good)] if failures and good else good:
        again = _train(part, device, progress)
        if again is not None:
            failures.append(again)
    try:
        raise_if_failed(failures, len(stack.folders))
    except MmsslError as combined:
        return combined
    return None


def _train(stack: Stack, device: str, progress: Progress) -> MmsslError | None:
    try:
        jobs = [
            Job(settings, answered(Shard.open(path), settings))
            for settings, path in zip(stack.settings, stack.shards, strict=True)
        ]
        train_all(jobs, stack.folders, choose_device(device), progress, stack=len(jobs))
    except Interrupted:
        raise
    except MmsslError as error:
        return error
    return None


def _fault(run: Stack) -> DataError | None:
    """What is wrong with a run's shard or folder, if anything."""
    try:
        Run.prepare(run.folders[0], run.settings[0])
        shard = Shard.open(run.shards[0])
        shard.verify()
        check_examples(run.settings[0], answered(shard, run.settings[0]))
    except DataError as error:
        return error
    return None


class _EpochLog(Silent):
    """Logs the epoch once a minute, for a process without a terminal of its own."""

    def __init__(self, stack: Stack, stop: Callable[[], None] = lambda: None) -> None:
        self.stack, self.stop, self.last_logged = stack, stop, time.monotonic()

    def step(self, done: int, total: int) -> None:  # noqa: ARG002
        self.stop()

    def epoch(self, epoch: int, epochs: int, summary: str) -> None:
        if time.monotonic() - self.last_logged > _LOG_INTERVAL:
            self.last_logged = time.monotonic()
            _log.info("%s: epoch %d/%d: %s", self.stack, epoch, epochs, summary)


class _Stoppable:
    """Forwards progress, and stops training that began after the request to stop."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        self.progress, self.stop = progress, stop

    def step(self, done: int, total: int) -> None:
        self.progress.step(done, total)
        check_stop(self.stop)

    def epoch(self, epoch: int, epochs: int, summary: str) -> None:
        self.progress.epoch(epoch, epochs, summary)


class ThisProcess:
    """Trains stacks one after another in this process.

    A request to stop that arrives while shards are read or a model is evaluated waits until that is done: an exception
    raised in the middle of a read might be swallowed by HDF5.
    """

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:
        with stop_requests() as stop:
            for stack in todo:
                check_stop(stop)
                yield stack, _attempt(stack, device, _Stoppable(progress, stop))


@dataclass(frozen=True)
class LocalProcesses:
    """Trains stacks in separate processes that share the cores.

    When this process is asked to stop, it asks them to stop too, and each saves its state. One that dies ends its own
    stack alone.

    Attributes:
        count: how many processes run at once.
    """

    count: int

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:  # noqa: ARG002
        with stop_requests() as stop:
            yield from side_by_side(
                _in_process,
                ((stack, (stack, device)) for stack in todo),
                stop,
                processes=min(self.count, len(todo)),
                threads=torch.get_num_threads(),
                if_died=_died,
            )


@dataclass(frozen=True)
class DaskCluster:
    """Trains stacks on a Dask cluster whose workers see shards and runs under the same paths.

    A stack takes one unit of the resource GPU if any worker declares it.

    Attributes:
        scheduler: the scheduler's address, `tcp://host:8786`.
    """

    scheduler: str

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:  # noqa: ARG002
        by_name = {stack.folders[0].name: stack for stack in todo}
        tasks = {name: (stack, device) for name, stack in by_name.items()}
        with stop_requests() as stop:
            for name, failure in run_tasks(
                _on_worker, tasks, stop, scheduler=self.scheduler, resource="GPU", announce=True,
                shared=sorted({path for stack in todo for path in stack.shards}), if_died=lambda error: error,
            ):  # fmt: skip
                yield by_name[name], failure


def _died(stack: Stack) -> DataError:
    return DataError(
        f"the process that trained {stack} died",
        "check that there is enough memory (--jobs 1 needs least), then run the same command again",
    )


def _in_process(stack: Stack, device: str) -> MmsslError | None:
    return _attempt(stack, device, _EpochLog(stack, unless_orphaned()))


def _on_worker(stack: Stack, device: str, event: str) -> MmsslError | None:
    with on_worker(*stack.shards):
        return _attempt(stack, device, _EpochLog(stack, distant_stop(event)))
