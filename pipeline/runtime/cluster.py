"""Independent tasks through Dask: on processes of this machine, or on a cluster by its scheduler's address.

Workers compute, the caller receives results in the order in which they become ready, and a bounded number of tasks is
under way at any time. A task whose worker dies is done again elsewhere.
"""

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path
from queue import Empty, Queue
from typing import Any, TypeVar

from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.runtime.interrupts import Stop

_log = logging.getLogger(__name__)
T = TypeVar("T")
CONNECT_SECONDS = 15
_POLL = 0.2  # seconds between two looks at a request to stop
_DISTANT_POLL = 2.0
# Those with a level of their own, and those that Dask's event loop writes to.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado.application", "asyncio")
# Dask has its workers give small pieces of memory back at once, and ask for them page by page in the next moment.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": 64 << 20, "MALLOC_MMAP_THRESHOLD_": 4 << 20}
_one_at_a_time = threading.Lock()  # a worker with several threads too: a task takes much memory
_AHEAD = 2  # tasks under way per worker: one computed, one waiting at hand


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[..., T],
    tasks: Mapping[str, Sequence[Any]],
    stop: Stop,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    memory: str = "1GB",
    resource: str | None = None,
    announce: bool = False,
) -> Iterator[tuple[str, T]]:
    """(name, `function(*arguments)`) for every named task, as they become ready.

    Args:
        function: importable by the workers; what it takes and returns is pickled.
        tasks: name -> arguments.
        stop: looked at between results.
        workers: processes of this machine; by default one a core. One means this very process.
        scheduler: the address of a cluster's scheduler, such as `tcp://host:8786`, in place of local processes.
        memory: a local worker that takes more is stopped and its task given to another.
        resource: a Dask resource, such as GPU, of which a task takes 1 where any worker declares it.
        announce: a request to stop is to reach tasks that are under way: each gets one more argument, for
            `distant_stop`. For a scheduler alone.

    Raises:
        UsageError: `workers` is below 1, or given with a scheduler.
        DataError: the scheduler cannot be reached or is lost, or a task's workers died again and again.
        Interrupted: a stop was requested.
    """
    if workers is not None and (workers < 1 or scheduler):
        raise UsageError("--workers must be at least 1, and is for local processes: leave it out with --scheduler")
    count = min(workers or cores(), max(1, len(tasks)))
    if scheduler is None and count == 1:
        for name, arguments in tasks.items():
            check(stop)
            yield name, function(*arguments)
        return
    with ExitStack() as stack:
        client = stack.enter_context(_client(count, scheduler, memory, stop))
        yield from _through(client, function, tasks, stop, resource, scheduler, announce)


def check(stop: Stop) -> None:
    """
    Raises:
        Interrupted: a stop was requested.
    """
    if stop.requested:
        raise Interrupted(f"stopped by {stop.name}; what was finished is kept", "the same command goes on from there")


@contextmanager
def _client(count: int, scheduler: str | None, memory: str, stop: Stop) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster  # a second to import, and not needed for one process

    with ExitStack() as stack:
        stack.enter_context(_hushed())
        if scheduler is None:
            stack.enter_context(_same_environment())
            stack.enter_context(dask.config.set(_local_workers()))
            try:
                with _deaf_to_interrupts():
                    local = LocalCluster(  # type: ignore[no-untyped-call]
                        n_workers=count,
                        threads_per_worker=1,
                        memory_limit=memory,
                        dashboard_address="127.0.0.1:0",
                        silence_logs=logging.CRITICAL,
                    )
            except RuntimeError as error:
                check(stop)  # SIGTERM may have reached the processes that were starting, too
                raise DataError(
                    f"worker processes could not be started: {error.__cause__ or error}",
                    "--workers 1 does without them",
                ) from error
            cluster = stack.enter_context(local)
            client = stack.enter_context(Client(cluster))  # type: ignore[no-untyped-call]
            client.register_plugin(_in_a_worker())
        else:
            try:
                client = stack.enter_context(Client(scheduler, timeout=CONNECT_SECONDS))  # type: ignore[no-untyped-call]
            except (OSError, ValueError, TimeoutError) as error:
                raise DataError(
                    f"cannot reach a Dask scheduler at {scheduler}: {error}",
                    "start one with `dask scheduler`, and `dask worker ADDRESS` on every machine",
                ) from error
        if scheduler is not None and client.dashboard_link:
            _log.info("Dask's dashboard: %s", client.dashboard_link)
        yield client


def _local_workers() -> dict[str, Any]:
    """Dask's configuration for workers of this machine.

    One near its limit of memory goes on, and is replaced beyond it: Dask would have it pause until it has less, which
    may be never.
    """
    import dask

    environment = {**dask.config.get("distributed.nanny.pre-spawn-environ", {}), **_MALLOC}
    never = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")}
    return {"distributed.nanny.pre-spawn-environ": environment, **never}


@contextmanager
def _same_environment() -> Iterator[None]:
    """Dask writes its workers' OMP_NUM_THREADS=1 into our own environment, where every child would read it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Threads started within it, and the processes that these start, do not receive Ctrl-C.

    A terminal sends it to all of its processes, and only the parent is to act. Python's handlers run in the main
    thread, whichever receives the signal.
    """
    resource_tracker.ensure_running()  # it would unblock what is blocked here
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_a_worker() -> Any:
    """A plugin for local workers: they share our terminal, and Dask's own lines are not for it."""
    from distributed import WorkerPlugin

    class InAWorker(WorkerPlugin):
        def setup(self, worker: Any) -> None:  # noqa: ARG002
            _hush()

    return InAWorker()


def _hush() -> dict[str, int]:
    """Silences Dask's own loggers; returns the levels they had."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return levels


@contextmanager
def _hushed() -> Iterator[None]:
    """Within it Dask does not log: what its processes lose when they are stopped, it tells with tracebacks.

    Where it matters we tell it ourselves. After an error the loggers stay silent: connections are still closing.
    """
    levels = _hush()
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _through(
    client: Any,
    function: Callable[..., T],
    tasks: Mapping[str, Sequence[Any]],
    stop: Stop,
    resource: str | None,
    scheduler: str | None,
    announce: bool,
) -> Iterator[tuple[str, T]]:
    from distributed import Event, KilledWorker

    if not client.nthreads():
        _log.warning("the scheduler at %s has no workers yet; waiting for one", scheduler)
    while not client.nthreads():
        check(stop)
        time.sleep(_POLL)
    known = _workers(client).values()
    demand = {resource: 1} if resource and any(resource in worker["resources"] for worker in known) else None
    run = uuid.uuid4().hex[:8]  # keys of another client must not answer ours
    waiting = iter(tasks.items())
    event = f"mmssl-stop-{run}"
    asked: Any = Event(event, client=client)  # type: ignore[no-untyped-call]
    extra = (event,) if announce else ()
    ready: Queue[Any] = Queue()
    under_way: dict[Any, str] = {}
    told: set[str] = set()

    def fill() -> None:
        room = _AHEAD * max(1, sum(client.nthreads().values())) - len(under_way)
        for name, arguments in islice(waiting, max(0, room)):
            future = client.submit(function, *arguments, *extra, key=f"{name}-{run}", resources=demand, pure=False)
            under_way[future] = name
            future.add_done_callback(ready.put)

    fill()
    looked = time.monotonic()
    while under_way:
        if stop.requested and announce:
            asked.set()
        check(stop)
        try:
            future = ready.get(timeout=_POLL)
        except Empty:
            if client.status == "running":
                if time.monotonic() - looked > _DISTANT_POLL:
                    looked = time.monotonic()
                    with suppress(OSError):  # a scheduler that is lost: the client will know in a moment
                        fill()  # workers that joined since are to have work, however long the others take
                        _tell_paused(client, told)
                continue
            raise _lost(scheduler) from None
        name = under_way.pop(future)
        try:
            result = future.result()
        except KilledWorker as error:
            raise DataError(
                f"{name}: the worker processes that tried it died, one after another",
                "see whether there is memory enough for it (--workers 1 takes least), then run the same command again",
            ) from error
        except CancelledError as error:
            raise _lost(scheduler) from error
        del future  # with it the worker's copy of the result goes
        fill()
        yield name, result
        del result


def _workers(client: Any) -> dict[str, dict[str, Any]]:
    """Address -> what the scheduler knows of a worker, of all workers."""
    found: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    return found


def _tell_paused(client: Any, told: set[str]) -> None:
    """Warns once of each worker that takes no work because its memory is nearly full, for this may last for ever."""
    for address, worker in _workers(client).items():
        if worker["status"] == "paused" and address not in told:
            told.add(address)
            _log.warning(
                "the worker %s is paused: it takes more than Dask's share (80 %%) of its limit, %.1f GB; "
                "if it stays so, start it anew with a larger --memory-limit, or with 0 for none",
                address,
                worker["memory_limit"] / 1e9,
            )


@contextmanager
def on_worker(*paths: Path) -> Iterator[None]:
    """What a task of `run_tasks` does its work in: one at a time per process, with its files in sight.

    Raises:
        DataError: this worker does not see one of the paths.
    """
    for path in paths:
        if not path.exists():
            raise DataError(
                f"a Dask worker does not see {path}", "the workspace must lie under the same path for every worker"
            )
    with _one_at_a_time:
        yield


def distant_stop(event: str) -> Callable[[], None]:
    """In a task of `run_tasks` with `announce`: a function that raises Interrupted once its caller is asked to stop."""
    import distributed

    announced: Any = distributed.Event(event)  # type: ignore[no-untyped-call]
    looked = time.monotonic()

    def stop() -> None:
        nonlocal looked
        if time.monotonic() - looked > _DISTANT_POLL:  # each look is a message to the scheduler
            looked = time.monotonic()
            if announced.is_set():
                raise Interrupted("stopped at the client's request")

    return stop


def _lost(scheduler: str | None) -> DataError:
    return DataError(
        f"the connection to the Dask scheduler {scheduler or 'of this machine'} was lost; what was finished is kept",
        "the same command goes on from there",
    )
