"""Where stacks are trained: in this process, in several, or by a Dask cluster."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pipeline.runtime.cluster import check, distant_stop, on_worker, run_tasks
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, Interrupted, MmsslError, TrainingError, UsageError
from pipeline.runtime.interrupts import Stop, stop_requests
from pipeline.shards.shard import Shard
from trainer.jobs.plan import Job
from trainer.jobs.stacks import Stack
from trainer.jobs.train import train_all
from trainer.training.progress import Progress, Silent

_log = logging.getLogger(__name__)
_POLL = 0.5  # seconds between two looks at a request to stop
_SAY = 60.0  # seconds between two lines about a stack that is under way


Results = Generator["tuple[Stack, MmsslError | None]", None, None]  # stacks as they end, and why they failed


class Executor(Protocol):
    """Where stacks are trained."""

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:
        """Trains all stacks; one that fails stops no other.

        Raises:
            Interrupted: SIGTERM or Ctrl-C came; what is done is saved.
            DataError: processes or workers were lost.
        """
        ...


def choose_executor(jobs: int = 1, scheduler: str | None = None) -> Executor:
    """This process, several processes of this machine, or a Dask cluster.

    Raises:
        UsageError: `jobs` is below 1, or given with a scheduler.
    """
    if jobs < 1 or (jobs > 1 and scheduler):
        raise UsageError("--jobs must be at least 1, and is for local processes: leave it out with --scheduler")
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
    """Trains all stacks; one that fails stops no other.

    Args:
        device: auto, cpu or cuda, where each stack is trained.
        progress: watches the training in this process.
        executor: this process where None.
        finished: called after each stack with how many are done, and which it was.

    Returns:
        Why stacks failed.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; what is done is saved.
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


def raise_if_failed(failures: Sequence[MmsslError], stacks: int) -> None:
    """
    Raises:
        MmsslError: the failure itself where there was but one stack.
        TrainingError: some stacks failed; the others are done.
    """
    if not failures:
        return
    first = failures[0]
    if stacks == 1:
        raise first
    raise TrainingError(
        f"{len(failures)} of {stacks} stacks failed, the others are done; the first: {first.message}",
        "the same command tries them again",
    )


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Within it, after so many minutes, this process is asked to stop as by SIGTERM; training saves itself.

    Raises:
        Interrupted: the time was up before the work was done.
    """
    if minutes is None:
        yield
        return
    up = threading.Event()

    def ask() -> None:
        up.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(60 * minutes, ask)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Interrupted:
        if up.is_set():
            raise Interrupted(
                f"stopped after {minutes:g} minutes, as asked; what was done is kept", "the same command goes on"
            ) from None
        raise
    finally:
        timer.cancel()


def _attempt(stack: Stack, device: str, progress: Progress) -> MmsslError | None:
    """Trains a stack; why it failed, or None."""
    try:
        jobs = [Job(settings, Shard.open(path)) for settings, path in zip(stack.settings, stack.shards, strict=True)]
        train_all(jobs, stack.folders, choose_device(device), progress, stack=len(jobs))
    except Interrupted:
        raise
    except MmsslError as error:
        return error
    return None


class _Lines(Silent):
    """For a process without a terminal of its own: a line about the epoch, now and then."""

    def __init__(self, stack: Stack, stop: Callable[[], None] = lambda: None) -> None:
        self.stack, self.stop, self.said = stack, stop, time.monotonic()

    def step(self, done: int, total: int) -> None:  # noqa: ARG002
        self.stop()

    def epoch(self, epoch: int, epochs: int, summary: str) -> None:
        if time.monotonic() - self.said > _SAY:
            self.said = time.monotonic()
            _log.info("%s: epoch %d/%d: %s", self.stack, epoch, epochs, summary)


class _Stoppable:
    """Passes on what it is told, and stops a training that began after the request to stop."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        self.progress, self.stop = progress, stop

    def step(self, done: int, total: int) -> None:
        self.progress.step(done, total)
        check(self.stop)

    def epoch(self, epoch: int, epochs: int, summary: str) -> None:
        self.progress.epoch(epoch, epochs, summary)


class ThisProcess:
    """Stacks one after another in this process.

    A request to stop that comes while shards are read or a model is measured waits until that is done: raised in the
    middle of it, HDF5 might swallow it.
    """

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:
        with stop_requests() as stop:
            for stack in todo:
                check(stop)
                yield stack, _attempt(stack, device, _Stoppable(progress, stop))


@dataclass(frozen=True)
class LocalProcesses:
    """Stacks in processes of their own, which share the cores, are asked to stop when this one is, and save themselves.

    Attributes:
        count: processes at once.
    """

    count: int

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:  # noqa: ARG002
        count = min(self.count, len(todo))
        threads = max(1, torch.get_num_threads() // count)
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _set_up, (threads, _log.level))
        with pool, stop_requests() as stop:
            waiting: dict[Future[MmsslError | None], Stack] = {
                pool.submit(_in_process, stack, device): stack for stack in todo
            }
            while waiting:
                ready, _ = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                if stop.requested:
                    _stop(pool, waiting)
                    check(stop)
                for future in ready:
                    stack = waiting.pop(future)
                    try:
                        yield stack, future.result()
                    except BrokenProcessPool:
                        raise DataError(
                            f"a process that trained {stack} or another stack died",
                            "check that there is enough memory (--jobs 1 takes least), then run the same command again",
                        ) from None


@dataclass(frozen=True)
class DaskCluster:
    """Stacks on a Dask cluster, whose workers see shards and runs under the same paths.

    A stack takes one of the resource GPU where workers declare it.

    Attributes:
        scheduler: its address, `tcp://host:8786`.
    """

    scheduler: str

    def run(self, todo: Sequence[Stack], device: str, progress: Progress) -> Results:  # noqa: ARG002
        by_name = {stack.folders[0].name: stack for stack in todo}
        tasks = {name: (stack, device) for name, stack in by_name.items()}
        with stop_requests() as stop:
            for name, failure in run_tasks(
                _on_worker, tasks, stop, scheduler=self.scheduler, resource="GPU", announce=True
            ):
                yield by_name[name], failure


def _stop(pool: ProcessPoolExecutor, waiting: Collection[Future[Any]]) -> None:
    """Asks the processes to stop, again and again: one that has not yet begun to train does not hear it."""
    pids = list(pool._processes)  # there is no public way to them, and none left after the shutdown
    pool.shutdown(wait=False, cancel_futures=True)
    while any(future.running() for future in waiting):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        wait(waiting, timeout=_POLL)


def _set_up(threads: int, level: int) -> None:
    """In a new process: its share of the cores, and deaf to signals but while it trains, when they save its work."""
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, signal.SIG_IGN)
    torch.set_num_threads(threads)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("trainer").setLevel(level)


def _in_process(stack: Stack, device: str) -> MmsslError | None:
    parent = os.getppid()

    def stop_where_abandoned() -> None:
        if os.getppid() != parent:
            raise Interrupted("stopped: the process that began it is gone")

    return _attempt(stack, device, _Lines(stack, stop_where_abandoned))


def _on_worker(stack: Stack, device: str, event: str) -> MmsslError | None:
    with on_worker(*stack.shards):
        return _attempt(stack, device, _Lines(stack, distant_stop(event)))
