"""Many runs in parts: grouped into stacks, ordered, and trained here, in processes, or by a Dask cluster."""

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
from typing import Any

import torch

from pipeline.runtime.cluster import check, distant_stop, run_tasks
from pipeline.runtime.errors import DataError, Interrupted, MmsslError, TrainingError, UsageError
from pipeline.runtime.interrupts import Stop, stop_requests
from pipeline.shards.shard import Shard
from trainer.jobs import train as runner
from trainer.jobs.environment import choose_device
from trainer.jobs.plan import Job
from trainer.jobs.stacks import Stack
from trainer.training.progress import Progress, Silent

_log = logging.getLogger(__name__)
_POLL = 0.5  # seconds between two looks at a request to stop
_SAY = 60.0  # seconds between two lines about a part that is under way
_one_at_a_time = threading.Lock()  # a worker process trains one part at a time, whatever its threads


Results = Generator["tuple[Stack, str | None]", None, None]  # parts as they end, and why they failed


def train_stacks(
    todo: Sequence[Stack],
    device: str,
    progress: Progress,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    finished: Callable[[int, Stack], None] | None = None,
) -> list[str]:
    """Trains all parts; one that fails stops no other.

    Args:
        device: auto, cpu or cuda, where each part is trained.
        progress: of the training in this process.
        jobs: processes of this machine; they share its cores.
        scheduler: of a Dask cluster, whose workers see shards and runs under the same paths. A part takes one of the
            resource GPU where workers declare it.
        finished: told after each part how many are done, and which it was.

    Returns:
        Why parts failed, a sentence each.

    Raises:
        UsageError: `jobs` is below 1, or given with a scheduler.
        Interrupted: SIGTERM or Ctrl-C came; what is done is saved.
        DataError: the cluster cannot be reached, or lost its workers.
    """
    check_jobs(jobs, scheduler)
    if not todo:
        return []
    if scheduler is not None:
        results = _on_cluster(todo, device, scheduler)
    elif jobs > 1 and len(todo) > 1:
        results = _in_processes(todo, device, min(jobs, len(todo)))
    else:
        results = _here(todo, device, progress)
    failures = []
    with closing(results):  # with it go its handlers of signals, and its processes
        for done, (part, failure) in enumerate(results, 1):
            if failure is not None:
                _log.error("%s failed: %s", part, failure)
                failures.append(failure)
            if finished is not None:
                finished(done, part)
    return failures


def raise_if_failed(failures: Sequence[str]) -> None:
    """
    Raises:
        TrainingError: some part of the work failed; the rest is done.
    """
    if failures:
        raise TrainingError(
            f"{len(failures)} stack{'s' * (len(failures) > 1)} failed, the others are done; the first: {failures[0]}",
            "the same command tries them again",
        )


def check_jobs(jobs: int, scheduler: str | None) -> None:
    """
    Raises:
        UsageError: `jobs` is below 1, or given with a scheduler.
    """
    if jobs < 1 or (jobs > 1 and scheduler):
        raise UsageError("--jobs must be at least 1, and is for local processes: leave it out with --scheduler")


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


def _attempt(part: Stack, device: str, progress: Progress) -> str | None:
    """Trains a part; why it failed, or None."""
    try:
        jobs = [Job(settings, Shard.open(path)) for settings, path in zip(part.settings, part.shards, strict=True)]
        runner.train_all(jobs, part.folders, choose_device(device), progress, stack=len(jobs))
    except Interrupted:
        raise
    except MmsslError as error:
        return error.message
    return None


class _Lines(Silent):
    """For a process without a terminal of its own: a line about the epoch, now and then."""

    def __init__(self, part: Stack, stop: Callable[[], None] = lambda: None) -> None:
        self.part, self.stop, self.said = part, stop, time.monotonic()

    def step(self, done: int, total: int) -> None:  # noqa: ARG002
        self.stop()

    def epoch(self, epoch: int, epochs: int, summary: str) -> None:
        if time.monotonic() - self.said > _SAY:
            self.said = time.monotonic()
            _log.info("%s: epoch %d/%d: %s", self.part, epoch, epochs, summary)


class _Stoppable:
    """Passes on what it is told, and stops a training that began after the request to stop."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        self.progress, self.stop = progress, stop

    def step(self, done: int, total: int) -> None:
        self.progress.step(done, total)
        check(self.stop)

    def epoch(self, epoch: int, epochs: int, summary: str) -> None:
        self.progress.epoch(epoch, epochs, summary)


def _here(todo: Sequence[Stack], device: str, progress: Progress) -> Results:
    """Parts in this process. A request to stop that comes while shards are read or a model is measured waits for that:
    raised in the midst of it, HDF5 might swallow it.
    """
    with stop_requests() as stop:
        for part in todo:
            check(stop)
            yield part, _attempt(part, device, _Stoppable(progress, stop))


def _in_processes(todo: Sequence[Stack], device: str, count: int) -> Results:
    """Parts in processes of their own, which are asked to stop when this one is, and save themselves."""
    threads = max(1, torch.get_num_threads() // count)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _set_up, (threads, _log.level))
    with pool, stop_requests() as stop:
        waiting: dict[Future[str | None], Stack] = {pool.submit(_in_process, part, device): part for part in todo}
        while waiting:
            ready, _ = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
            if stop.requested:
                _stop(pool, waiting)
                check(stop)
            for future in ready:
                part = waiting.pop(future)
                try:
                    yield part, future.result()
                except BrokenProcessPool:
                    raise DataError(
                        f"a process that trained {part} or another part died",
                        "see whether there is memory enough (--jobs 1 takes least), then run the same command again",
                    ) from None


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


def _in_process(part: Stack, device: str) -> str | None:
    parent = os.getppid()

    def stop_where_abandoned() -> None:
        if os.getppid() != parent:
            raise Interrupted("stopped: the process that began it is gone")

    return _attempt(part, device, _Lines(part, stop_where_abandoned))


def _on_cluster(todo: Sequence[Stack], device: str, scheduler: str) -> Results:
    by_name = {part.folders[0].name: part for part in todo}
    tasks = {name: (part, device) for name, part in by_name.items()}
    with stop_requests() as stop:
        for name, failure in run_tasks(_on_worker, tasks, stop, scheduler=scheduler, resource="GPU", announce=True):
            yield by_name[name], failure


def _on_worker(part: Stack, device: str, event: str) -> str | None:
    for path in part.shards:
        if not path.exists():
            raise DataError(
                f"a Dask worker does not see {path}", "the workspace must lie under the same path for every worker"
            )
    with _one_at_a_time:
        return _attempt(part, device, _Lines(part, distant_stop(event)))
