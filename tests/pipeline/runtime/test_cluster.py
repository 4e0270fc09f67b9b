"""Tasks on local processes and on a cluster: their environment, their memory."""

import os
import time

import dask
import pytest

from pipeline.runtime.cluster import _warn_of_paused, run_tasks
from pipeline.runtime.interrupts import stop_requests


def test_local_processes_leave_our_own_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask sets OMP_NUM_THREADS=1 for its workers in their parent: what ran after it had one thread, and other bits."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with stop_requests() as stop:
        results = dict(run_tasks(os.getenv, {"a": ("OMP_NUM_THREADS",), "b": ("OMP_NUM_THREADS",)}, stop, workers=2))
    assert results == {"a": "1", "b": "1"}
    assert dict(os.environ) == before


_held: list[bytearray] = []


def hold(limit: int, share: float) -> int:
    """Takes memory up to a share of the limit, and keeps it."""
    if not _held:
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        _held.append(bytearray(b"x") * int(share * limit - resident))
    time.sleep(0.5)  # Dask looks every tenth of a second
    return os.getpid()


def test_a_worker_near_its_limit_of_memory_goes_on() -> None:
    """Dask's own workers pause at 80 %, and where the memory stays taken the caller would wait for ever."""
    limit = 400 << 20
    with stop_requests() as stop:
        results = dict(run_tasks(hold, {f"{k}": (limit, 0.85) for k in range(6)}, stop, workers=2, memory=str(limit)))
    assert len(results) == 6
    assert len(set(results.values())) == 2


def die_or_answer(name: str) -> str:
    if name == "bad":
        os._exit(1)
    return name


def test_a_task_that_kills_its_workers_stops_no_other() -> None:
    tasks = {name: (name,) for name in ("good", "bad", "better")}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), stop_requests() as stop:
        results = dict(run_tasks(die_or_answer, tasks, stop, workers=2, if_died=lambda error: error.message))
    assert results["bad"] == "bad: every worker process that tried it died"
    assert results.keys() == tasks.keys()


class PausedCluster:
    """What a client says of a cluster with one worker that is paused and one that is not."""

    def scheduler_info(self, n_workers: int) -> dict[str, dict[str, dict[str, object]]]:
        assert n_workers == -1
        return {
            "workers": {
                "tcp://a:1": {"status": "paused", "memory_limit": 4_000_000_000},
                "tcp://b:2": {"status": "running", "memory_limit": 4_000_000_000},
            }
        }


def test_a_paused_worker_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    warned: set[str] = set()
    for _ in range(2):
        _warn_of_paused(PausedCluster(), warned)
    assert [record.getMessage() for record in caplog.records] == [
        "the worker tcp://a:1 is paused: it uses more than 80 % of its memory limit of 4.0 GB; if it stays paused, "
        "restart it with a larger --memory-limit, or with 0 for none"
    ]
