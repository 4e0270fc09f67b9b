"""Tasks side by side in processes of this machine: the death of one ends its own task alone, and all stop with us."""

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any, TypeVar

from pipeline.runtime.errors import Interrupted
from pipeline.runtime.interrupts import STOP_SIGNALS, Stop, check_stop

K = TypeVar("K")
T = TypeVar("T")
_POLL = 0.5  # seconds between two checks for a request to stop
_LOGGERS = ("pipeline", "trainer")


def side_by_side(
    function: Callable[..., T],
    tasks: Iterable[tuple[K, tuple[Any, ...]]],
    stop: Stop,
    *,
    processes: int,
    threads: int,
    if_died: Callable[[K], T],
) -> Iterator[tuple[K, T]]:
    """Yields (key, `function(*arguments)`) for every (key, arguments), as results become ready.

    Args:
        function: importable; its arguments and its result are pickled. Signals reach it only where it waits for them
            (`stop_requests`), and `unless_orphaned` tells it that we are gone.
        tasks: the next one is asked for when a process has nothing to do.
        stop: checked between results. A request reaches all processes, and each ends as its function decides.
        processes: how many run at once.
        threads: of PyTorch in each of them, altogether.
        if_died: makes the result of a task whose process died.

    Raises:
        Interrupted: a stop was requested.
    """
    share, waiting = max(1, threads // processes), iter(tasks)
    with ExitStack() as pools:
        idle: list[ProcessPoolExecutor] = [pools.enter_context(_one_process(share)) for _ in range(processes)]
        at_work: dict[Future[T], tuple[K, ProcessPoolExecutor]] = {}
        try:
            while True:
                while idle and (task := next(waiting, None)) is not None:
                    (key, arguments), pool = task, idle.pop()
                    at_work[pool.submit(function, *arguments)] = (key, pool)
                if not at_work:
                    return
                ready, _ = wait(at_work, timeout=_POLL, return_when=FIRST_COMPLETED)
                check_stop(stop)
                for future in ready:
                    key, pool = at_work.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:  # it was killed, or could not start; the others know nothing of it
                        result = if_died(key)
                        pool = pools.enter_context(_one_process(share))
                    idle.append(pool)
                    yield key, result
        except BaseException:  # a request to stop, or what ends everything, such as a full disk
            _stop({future: pool for future, (_, pool) in at_work.items()})
            raise


def unless_orphaned() -> Callable[[], None]:
    """A check for functions of `side_by_side`: raises Interrupted once the process that started this one is gone."""
    parent = os.getppid()

    def check() -> None:
        if os.getppid() != parent:
            raise Interrupted("stopped: the process that started it is gone")

    return check


def _one_process(threads: int) -> ProcessPoolExecutor:
    """A process of its own that starts with its first task: in a pool of several the death of one would end all."""
    watched = sys.stderr.isatty()  # what shows progress there must not be written over
    levels = {name: logging.WARNING if watched else logging.getLogger(name).level for name in _LOGGERS}
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_up, (threads, levels))


def _stop(at_work: Mapping[Future[T], ProcessPoolExecutor]) -> None:
    """Asks the processes to stop, repeatedly: one whose function does not wait for signals yet ignores them."""
    pids = [pid for pool in at_work.values() for pid in pool._processes]  # there is no public access to them
    while not all(future.done() for future in at_work):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        wait(at_work, timeout=_POLL)


def _set_up(threads: int, levels: Mapping[str, int]) -> None:
    """Prepares a new process: it takes its share of the cores, logs as we do, and ignores signals for now."""
    import torch

    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
