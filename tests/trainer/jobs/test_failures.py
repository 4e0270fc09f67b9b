"""Stacks that fail: wherever they are trained, the others are done, and why comes back with its hint."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from pipeline.runtime.errors import DataError, MmsslError, TrainingError, UsageError
from pipeline.runtime.failures import Failures, raise_if_failed
from pipeline.runtime.leases import _leases
from tests.support.training import X, clusters, make_settings, make_shard, turns
from trainer.jobs.executors import (
    DaskCluster,
    Executor,
    LocalProcesses,
    ThisProcess,
    choose_executor,
    train_stacks,
)
from trainer.jobs.plan import Job
from trainer.jobs.stacks import PlannedRun, Stack, make_stacks, usable
from trainer.training.progress import Silent


def work(folder: Path, *epochs: int) -> list[PlannedRun]:
    """A small run for each number of epochs."""
    shard = make_shard(folder / "shard.h5", (X,))
    jobs = [Job(make_settings("m2", shard, epochs=count), shard) for count in epochs]
    return [PlannedRun(job, folder / "runs" / job.settings.name()) for job in jobs]


def spoil(run: PlannedRun) -> None:
    """Puts another's file where the run would lie."""
    run.folder.mkdir(parents=True)
    (run.folder / "mine.txt").write_text("not a run")


@contextmanager
def cluster() -> Iterator[Executor]:
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as dask:
        yield DaskCluster(dask.scheduler_address)


EXECUTORS: dict[str, Callable[[], AbstractContextManager[Executor]]] = {
    "this process": lambda: nullcontext(ThisProcess()),
    "processes": lambda: nullcontext(LocalProcesses(2)),
    "cluster": cluster,
}


@pytest.mark.parametrize("where", EXECUTORS)
def test_a_stack_that_fails_stops_no_other(where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    first, bad, last = work(tmp_path, 1, 2, 3)
    spoil(bad)
    ended: list[tuple[int, str]] = []
    todo = make_stacks([first, bad, last], 1)
    with EXECUTORS[where]() as executor:
        failures = train_stacks(todo, "cpu", Silent(), executor, lambda done, stack: ended.append((done, str(stack))))
    (failure,) = failures
    assert isinstance(failure, DataError)
    assert f"{bad.folder} holds other files" in failure.message
    assert "--out" in str(failure.hint)
    assert [first.done, bad.done, last.done] == [True, False, True]
    assert [done for done, _ in ended] == [1, 2, 3]
    assert {name for _, name in ended} == {run.folder.name for run in (first, bad, last)}
    assert f"{bad.folder.name} failed: {failure.message}" in caplog.text
    assert train_stacks(make_stacks([first, last], 1), "cpu", Silent()) == []  # nothing is left of these


def test_a_bad_shard_in_a_stack_stops_none_of_the_others(tmp_path: Path) -> None:
    runs = []
    for split in range(3):
        shard = make_shard(tmp_path / f"split-{split}.h5", (X,))
        job = Job(make_settings("m2", shard, epochs=1, split=split), shard)
        runs.append(PlannedRun(job, tmp_path / "runs" / job.settings.name()))
    (stack,) = make_stacks(runs, 16)
    stack.shards[1].write_bytes(b"")
    (failure,) = train_stacks([stack], "cpu", Silent())
    assert [run.done for run in runs] == [True, False, True]
    assert "1 failed, the others are done" in failure.message
    assert "split-1.h5" in failure.message


def test_a_draw_without_a_class_leaves_out_its_run_alone(tmp_path: Path) -> None:
    train = clusters("train", turns(40), (X,))
    train.labelled = np.asarray(train.labels) > 0  # none of the first class
    bad = make_shard(tmp_path / "bad.h5", (X,), train=train)
    good = make_shard(tmp_path / "good.h5", (X,))
    runs = [
        PlannedRun(Job(make_settings("m2", bad, labels="shard"), bad), tmp_path / "bad"),
        PlannedRun(Job(make_settings("m2", good), good), tmp_path / "good"),
    ]
    left_out = Failures()
    assert usable(runs, left_out) == runs[1:]
    with pytest.raises(TrainingError, match=r"1 failed, the others are done: bad: .*no labelled training example of"):
        left_out.raise_if_any(2)
    with pytest.raises(DataError, match=r"bad\.h5: no labelled training example of class"):
        left_out.raise_if_any(1)


def test_the_failures_become_one_error() -> None:
    raise_if_failed([], 3)
    only = DataError("no such file", "make it")
    with pytest.raises(DataError) as caught:
        raise_if_failed([only], 1)
    assert caught.value is only
    with pytest.raises(TrainingError, match=r"^2 failed, the others are done: no such file; another$") as several:
        raise_if_failed([only, MmsslError("another")], 3)
    assert several.value.hint == "make it; the same command retries what failed"


def kill_who_trains(run: PlannedRun) -> None:
    """Kills the process that trains a run, as the kernel does when memory runs out; it holds the run's lease."""
    deadline = time.monotonic() + 60
    while not (run.folder / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    (holder,) = _leases(run.folder, "")
    assert holder.process is not None
    os.kill(holder.process.pid, signal.SIGKILL)


def test_a_process_that_dies_ends_its_own_stack_alone(tmp_path: Path) -> None:
    endless, *others = work(tmp_path, 10**6, 1, 2, 3)
    killer = threading.Thread(target=kill_who_trains, args=[endless])
    killer.start()
    failures = train_stacks(make_stacks([endless, *others], 1), "cpu", Silent(), LocalProcesses(2))
    killer.join()
    (failure,) = failures
    assert isinstance(failure, DataError)
    assert failure.message == f"the process that trained {endless.folder.name} died"
    assert "memory" in str(failure.hint)
    assert [run.done for run in (endless, *others)] == [False, True, True, True]


def test_an_executor_is_chosen_by_the_options() -> None:
    assert isinstance(choose_executor(), ThisProcess)
    assert choose_executor(3) == LocalProcesses(3)
    assert choose_executor(scheduler="tcp://a:1") == DaskCluster("tcp://a:1")
    for jobs, scheduler in ((0, None), (2, "tcp://a:1")):
        with pytest.raises(UsageError, match="--jobs must be at least 1"):
            choose_executor(jobs, scheduler)


def test_nothing_to_do_asks_nobody() -> None:
    class Nobody:
        def run(self, todo: object, device: str, progress: object) -> Iterator[tuple[Stack, None]]:
            raise AssertionError((todo, device, progress))

    assert train_stacks([], "cpu", Silent(), Nobody()) == []  # type: ignore[arg-type]
