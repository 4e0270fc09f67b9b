"""Runs independent tasks through Dask: on local processes, or on a cluster given its scheduler's address.

Workers compute, the caller receives results in the order in which they become ready, and a bounded number of tasks is
in flight at any time. A task whose worker dies is run again elsewhere.
"""

import inspect
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
from pipeline.runtime.interrupts import STOP_SIGNALS, Stop, check_stop
from pipeline.runtime.machine import cores
from pipeline.runtime.workers import Answer, ask_workers, check_workers

_log = logging.getLogger(__name__)
T = TypeVar("T")
CONNECT_SECONDS = 15
_POLL = 0.2  # seconds between checks for a request to stop
_DISTANT_POLL = 2.0  # seconds between checks that ask the scheduler
# Dask's loggers with a level of their own, and those that its event loop writes to.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado.application", "asyncio")
# By default Dask's workers return small pieces of memory at once, only to fetch them back page by page a moment later.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": 64 << 20, "MALLOC_MMAP_THRESHOLD_": 4 << 20}
_one_at_a_time = threading.Lock()  # even in a worker with several threads: a task needs much memory
_AHEAD = 2  # tasks in flight per worker: one being computed, one waiting


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
    shared: Sequence[Path] = (),
    if_died: Callable[[DataError], T] | None = None,
) -> Iterator[tuple[str, T]]:
    """Yields (name, `function(*arguments)`) for every named task, as results become ready.

    Args:
        function: importable by the workers; its arguments and its result are pickled.
        tasks: name -> arguments.
        stop: checked between results.
        workers: local processes; by default one per core. With 1, tasks run in this process.
        scheduler: the address of a cluster's scheduler, such as `tcp://host:8786`, used instead of local processes.
        memory: a local worker that uses more is stopped, and its task given to another.
        resource: a Dask resource, such as GPU, of which each task takes 1 if any worker declares it.
        announce: whether a request to stop should reach tasks that are already running: each gets one more argument,
            for `distant_stop`. Only with a scheduler.
        shared: files and folders that every worker of a cluster must see.
        if_died: makes the result of a task whose workers died repeatedly, so that the others go on; None: an error.

    Raises:
        UsageError: `workers` is below 1, or given together with a scheduler.
        DataError: the scheduler cannot be reached or is lost, a worker of the cluster cannot do the work (it lacks
            mmssl, has another version, or does not see the files), or the workers of a task died repeatedly.
        Interrupted: a stop was requested.
    """
    if workers is not None and (workers < 1 or scheduler):
        raise UsageError(
            "--workers must be at least 1, and applies only to local processes: leave it out with --scheduler"
        )
    count = min(workers or cores(), max(1, len(tasks)))
    if scheduler is None and count == 1:
        for name, arguments in tasks.items():
            check_stop(stop)
            yield name, function(*arguments)
        return
    with ExitStack() as stack:
        client = stack.enter_context(_client(count, scheduler, memory, stop))
        yield from _run_through(client, function, tasks, stop, resource, scheduler, announce, shared, if_died)


def ask_cluster(scheduler: str, shared: Sequence[Path]) -> Mapping[str, Answer]:
    """Worker's address -> what it says of itself, or why it cannot.

    Raises:
        DataError: the scheduler cannot be reached.
    """
    with _client(0, scheduler, "0", Stop()) as client:
        return ask_workers(client, _workers(client).keys(), shared)


@contextmanager
def _client(count: int, scheduler: str | None, memory: str, stop: Stop) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster  # takes a second to import, and one process does not need it

    with ExitStack() as stack:
        stack.enter_context(_silenced())
        if scheduler is None:
            stack.enter_context(_same_environment())
            stack.enter_context(dask.config.set(_local_workers()))
            try:
                with _interrupts_blocked():
                    local = LocalCluster(  # type: ignore[no-untyped-call]
                        n_workers=count,
                        threads_per_worker=1,
                        memory_limit=memory,
                        dashboard_address="127.0.0.1:0",
                        silence_logs=logging.CRITICAL,
                    )
            except RuntimeError as error:
                check_stop(stop)  # SIGTERM may also have reached the processes that were starting
                raise DataError(
                    f"worker processes could not be started: {error.__cause__ or error}",
                    "use --workers 1, which needs none",
                ) from error
            cluster = stack.enter_context(local)
            client = stack.enter_context(Client(cluster))  # type: ignore[no-untyped-call]
            client.register_plugin(_quiet_worker())
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
    """Dask's configuration for local workers.

    A worker near its memory limit keeps working, and is replaced if it exceeds the limit. By default Dask would pause
    it until it uses less, which may never happen.
    """
    import dask

    environment = {**dask.config.get("distributed.nanny.pre-spawn-environ", {}), **_MALLOC}
    disabled = {f"distributed.worker.memory.{action}": False for action in ("target", "spill", "pause")}
    return {"distributed.nanny.pre-spawn-environ": environment, **disabled}


@contextmanager
def _same_environment() -> Iterator[None]:
    """Restores our environment: Dask writes its workers' OMP_NUM_THREADS=1 into it, for every child to inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keeps Ctrl-C and the like from the threads started within the block, and from the processes that these start.

    A terminal sends SIGINT and SIGHUP to all of its processes, and a batch system SIGUSR1, but only the parent should
    act on them. Python's handlers run in the main thread, whichever thread receives the signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(STOP_SIGNALS) - {signal.SIGTERM, signal.SIGINT})
    try:
        resource_tracker.ensure_running()  # if it were started with SIGINT blocked, it would unblock SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quiet_worker() -> Any:
    """A plugin that silences Dask in local workers, which share our terminal."""
    from distributed import WorkerPlugin

    class QuietWorker(WorkerPlugin):
        def setup(self, worker: Any) -> None:  # noqa: ARG002
            _silence()

    return QuietWorker()


def _silence() -> dict[str, int]:
    """Silences Dask's loggers; returns their previous levels."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return levels


@contextmanager
def _silenced() -> Iterator[None]:
    """Silences Dask within the block: when its processes are stopped, it logs tracebacks about everything they lose.

    What matters is logged here instead. After an error the loggers stay silent, since connections are still closing.
    """
    levels = _silence()
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _run_through(
    client: Any,
    function: Callable[..., T],
    tasks: Mapping[str, Sequence[Any]],
    stop: Stop,
    resource: str | None,
    scheduler: str | None,
    announce: bool,
    shared: Sequence[Path],
    if_died: Callable[[DataError], T] | None,
) -> Iterator[tuple[str, T]]:
    from distributed import Event, KilledWorker

    if not client.nthreads():
        _log.warning("the scheduler at %s has no workers yet; waiting for one", scheduler)
    while not client.nthreads():
        check_stop(stop)
        time.sleep(_POLL)
    checked: set[str] = set()

    def check_new() -> None:
        new = _workers(client).keys() - checked
        if scheduler is not None and new:
            check_workers(client, new, shared, scheduler)
        checked.update(new)

    check_new()
    workers = _workers(client).values()
    resources = {resource: 1} if resource and any(resource in worker["resources"] for worker in workers) else None
    run_id = uuid.uuid4().hex[:8]  # so that our keys differ from another client's
    remaining = iter(tasks.items())
    event_name = f"mmssl-stop-{run_id}"
    stop_event: Any = Event(event_name, client=client)  # type: ignore[no-untyped-call]
    extra = (event_name,) if announce else ()
    ready: Queue[Any] = Queue()
    in_flight: dict[Any, str] = {}
    warned: set[str] = set()

    def fill() -> None:
        room = _AHEAD * max(1, sum(client.nthreads().values())) - len(in_flight)
        for name, arguments in islice(remaining, max(0, room)):
            future = client.submit(
                function, *arguments, *extra, key=f"{name}-{run_id}", resources=resources, pure=False
            )
            in_flight[future] = name
            future.add_done_callback(ready.put)

    fill()
    last_look = time.monotonic()
    while in_flight:
        if stop.requested and announce:
            stop_event.set()
        check_stop(stop)
        try:
            future = ready.get(timeout=_POLL)
        except Empty:
            if client.status == "running":
                if time.monotonic() - last_look > _DISTANT_POLL:
                    last_look = time.monotonic()
                    with suppress(OSError):  # the scheduler is lost: the client will notice in a moment
                        check_new()
                        fill()  # gives work to workers that have joined since, however long the others take
                        _warn_of_paused(client, warned)
                continue
            raise _lost(scheduler) from None
        name = in_flight.pop(future)
        try:
            result = future.result()
        except KilledWorker as error:
            death = DataError(
                f"{name}: every worker process that tried it died",
                "check that it has enough memory (--workers 1 needs the least), then run the same command again",
            )
            if if_died is None:
                raise death from error
            result = if_died(death)
        except CancelledError as error:
            raise _lost(scheduler) from error
        except (ImportError, AttributeError, TypeError):  # perhaps of a worker that has just joined
            checked.clear()
            check_new()
            raise
        except RuntimeError as error:
            if "deserializ" not in str(error):
                raise
            raise DataError(
                f"the Dask scheduler {scheduler} cannot read our tasks: it lacks mmssl, or has another version",
                "start it in the environment of the workers, in which mmssl is installed: `dask scheduler`",
            ) from error
        del future  # releases the worker's copy of the result
        fill()
        yield name, result
        del result


def _workers(client: Any) -> dict[str, dict[str, Any]]:
    """Worker's address -> what the scheduler knows about it."""
    every = {"n_workers": -1} if "n_workers" in inspect.signature(client.scheduler_info).parameters else {}
    workers: dict[str, dict[str, Any]] = client.scheduler_info(**every)["workers"]  # older ones always give all
    return workers


def _warn_of_paused(client: Any, warned: set[str]) -> None:
    """Warns once about each worker that takes no work because its memory is nearly full: this may last forever."""
    for address, worker in _workers(client).items():
        if worker["status"] == "paused" and address not in warned:
            warned.add(address)
            _log.warning(
                "the worker %s is paused: it uses more than 80 %% of its memory limit of %.1f GB; "
                "if it stays paused, restart it with a larger --memory-limit, or with 0 for none",
                address,
                worker["memory_limit"] / 1e9,
            )


@contextmanager
def on_worker(*paths: Path) -> Iterator[None]:
    """Wraps the work of a task of `run_tasks`: one task at a time per process, and only if it can see its files.

    Raises:
        DataError: this worker cannot see one of the paths.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"a Dask worker cannot see {path}", "the workspace must have the same path on every worker")
    with _one_at_a_time:
        yield


def distant_stop(event: str) -> Callable[[], None]:
    """A function for tasks of `run_tasks` with `announce`: raises Interrupted once the caller was asked to stop."""
    import distributed

    announced: Any = distributed.Event(event)  # type: ignore[no-untyped-call]
    last_look = time.monotonic()

    def stop() -> None:
        nonlocal last_look
        if time.monotonic() - last_look > _DISTANT_POLL:  # each look is a message to the scheduler
            last_look = time.monotonic()
            if announced.is_set():
                raise Interrupted("stopped at the client's request")

    return stop


def _lost(scheduler: str | None) -> DataError:
    return DataError(
        f"the connection to the Dask scheduler {scheduler or 'of this machine'} was lost; finished work is kept",
        "run the same command again to resume",
    )
