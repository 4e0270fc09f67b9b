"""Runs trained in parts: here, in processes, on a Dask cluster; stopped, and gone on with."""

import os
import signal
from pathlib import Path

import pytest
from distributed import LocalCluster

from pipeline.datasets.resolve import shard_paths
from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.shards.shard import Shard
from tests.support.small_networks import SSMVAE
from trainer.jobs.executors import DaskCluster, LocalProcesses, choose_executor, time_limit, train_stacks
from trainer.jobs.plan import plan
from trainer.jobs.stacks import PlannedRun, Stack, make_stacks, status
from trainer.training.progress import Silent
from trainer.training.run_listing import METRICS


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    (path,) = shard_paths("hm-digits", (), tmp_path_factory.mktemp("digits"))
    return Shard.open(path)


def work(shard: Shard, folder: Path, *epochs: int) -> list[PlannedRun]:
    """A small run for each number of epochs, in a folder of its own."""
    values = {"networks": SSMVAE, "precision": "fp32"}
    jobs = [plan("ssmvae", [shard], values=values | {"epochs": count})[0] for count in epochs]
    return [PlannedRun(job, folder / job.settings.name()) for job in jobs]


class StopsAt(Silent):
    """Asks training to stop after so many steps, as a cluster's client does."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, done: int, total: int) -> None:  # noqa: ARG002
        if done == self.at:
            raise Interrupted("stopped at the client's request")


def test_who_watches_can_stop_the_training_which_goes_on_to_the_same_end(shard: Shard, tmp_path: Path) -> None:
    (undisturbed,) = work(shard, tmp_path / "undisturbed", 2)
    (disturbed,) = work(shard, tmp_path / "disturbed", 2)
    assert train_stacks(make_stacks([undisturbed], 1), "cpu", Silent()) == []
    assert status(disturbed) == "to do"
    with pytest.raises(Interrupted):
        train_stacks(make_stacks([disturbed], 1), "cpu", StopsAt(14))
    assert status(disturbed) == "begun, 1 of 2 epochs"
    seen: list[int] = []
    assert train_stacks(make_stacks([disturbed], 1), "cpu", Silent(), finished=lambda done, _: seen.append(done)) == []
    assert seen == [1]
    assert status(disturbed) == "done"
    assert make_stacks([disturbed], 1) == []
    for name in ("weights.safetensors", "metrics.csv", "result.json"):
        assert (disturbed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()


def test_a_part_that_fails_stops_no_other(shard: Shard, tmp_path: Path) -> None:
    first, second = work(shard, tmp_path, 1, 2)
    first.folder.mkdir(parents=True)
    (first.folder / "mine.txt").write_text("not a run")
    (failure,) = train_stacks(make_stacks([first, second], 1), "cpu", Silent())
    assert "holds other files" in failure.message
    assert second.done


def test_processes_train_side_by_side_and_save_themselves_when_asked_to_stop(shard: Shard, tmp_path: Path) -> None:
    todo = work(shard, tmp_path, 1, 2, 100_000)
    before = signal.getsignal(signal.SIGTERM)

    def stop_after_two(done: int, _: Stack) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"):
        train_stacks(make_stacks(todo, 1), "cpu", Silent(), LocalProcesses(2), stop_after_two)
    assert [planned.done for planned in todo] == [True, True, False]
    assert todo[2].begun or not (todo[2].folder / METRICS).exists()  # it saved itself, or had not begun to train
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_cluster_trains_the_same(shard: Shard, tmp_path: Path) -> None:
    (here,) = work(shard, tmp_path / "here", 1)
    train_stacks(make_stacks([here], 1), "cpu", Silent())
    todo = work(shard, tmp_path / "there", 1, 2)
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0", resources={"GPU": 1}
    ) as cluster:
        assert train_stacks(make_stacks(todo, 1), "cpu", Silent(), DaskCluster(cluster.scheduler_address)) == []
    assert all(planned.done for planned in todo)
    for name in ("weights.safetensors", "result.json"):
        assert (todo[0].folder / name).read_bytes() == (here.folder / name).read_bytes()


def test_wrong_use_and_a_cluster_that_is_not_there(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = make_stacks(work(shard, tmp_path, 1), 1)
    with pytest.raises(UsageError, match="--jobs"):
        choose_executor(2, "tcp://127.0.0.1:1")
    monkeypatch.setattr("pipeline.runtime.cluster.CONNECT_SECONDS", 0.5)
    with pytest.raises(DataError, match="cannot reach a Dask scheduler"):
        train_stacks(todo, "cpu", Silent(), choose_executor(scheduler="tcp://127.0.0.1:1"))


def test_a_time_limit_saves_what_was_done(shard: Shard, tmp_path: Path) -> None:
    (endless,) = work(shard, tmp_path, 100_000)
    todo = make_stacks([endless], 1)
    before = signal.signal(signal.SIGTERM, _interrupt)  # as the command line does
    try:
        with pytest.raises(Interrupted, match=r"stopped after 0\.02 minutes, as asked"), time_limit(0.02):
            train_stacks(todo, "cpu", Silent())
    finally:
        signal.signal(signal.SIGTERM, before)
    with time_limit(10):
        pass  # work that ends in time is left alone
    with time_limit(None):
        pass


def _interrupt(*_: object) -> None:
    raise Interrupted("stopped by SIGTERM")
