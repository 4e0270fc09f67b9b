"""Extraction stopped, killed, and on a cluster: it ends in the same bytes."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import LocalCluster

from pipeline.features import executors, split_modality
from pipeline.features.split_modality import ExtractionTask, Progress
from pipeline.runtime.errors import Interrupted, TrainingError
from pipeline.runtime.processes import Process, this_process
from tests.support.extraction import extract, in_process, in_process_that_dies, in_slow_process
from tests.support.paths import ROOT
from tests.support.rgbd_frames import contents, python, references_kept


def test_what_a_killed_run_leaves_at_its_worst_moments_is_cleared_away(
    root: Path, undisturbed: dict[str, bytes]
) -> None:
    extract(root, (3,))
    extract(root, (0,), modalities=["rgb"])
    dead = replace(this_process(), start=this_process().start + 1)  # a number that another process has now
    assert dead.gone
    unit = root / "features" / "rgbd-32" / "split-0-rgb.h5"
    # Killed after the unit's file and before its checkpoint's removal, while writing a unit, and while writing a shard.
    unit.with_suffix(".checkpoint.safetensors").write_bytes(b"whole, but not needed any more")
    unit.with_name(f".split-0-depth.h5.{dead}.partial").write_bytes(b"half")
    (root / "shards" / f".rgbd-32-split-0.h5.{dead}.partial").write_bytes(b"half")
    alive = root / "shards" / f".rgbd-32-split-9.h5.{this_process()}.partial"
    alive.write_bytes(b"of a process that is alive")
    extract(root, (0, 3))
    assert alive.exists()
    alive.unlink()
    assert contents(root) == undisturbed


def test_what_a_worker_leaves_that_died_of_a_unit_is_cleared_away(root: Path, undisturbed: dict[str, bytes]) -> None:
    """While the command lives: another worker does the unit again, and nobody would look for the rest."""
    extract(root, (3,))
    folder = root / "features" / "rgbd-32"
    worker = Process("0123456789ab", 42, 7)  # of another host
    left = [folder / f".split-0-rgb.{kind}.{worker}.partial" for kind in ("h5", "checkpoint.safetensors")]

    def die(what: str, done: int, total: int) -> None:  # noqa: ARG001
        if what.startswith("split 0, rgb: "):
            for path in left:
                path.write_bytes(b"half")

    extract(root, (0, 3), progress=die)
    assert contents(root) == undisturbed


def test_a_dead_process_leaves_no_claim_behind_where_all_was_done(root: Path, undisturbed: dict[str, bytes]) -> None:
    extract(root, (0, 3))
    unit = root / "features" / "rgbd-32" / "split-0-rgb.h5"
    die = f"import os; from pathlib import Path; from pipeline.runtime.leases import Lease; Lease().add(Path({str(unit)!r}).with_name('.{unit.name}.{'0' * 32}.lease')); os._exit(9)"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", die], cwd=ROOT, check=False).returncode == 9
    assert list(root.rglob(".*.lease"))
    extract(root, (0, 3))
    assert not list(root.rglob(".*.lease"))
    assert contents(root) == undisturbed


RUN = """
import logging, sys, time
from pathlib import Path
from tests.support.tiny_vgg import TinyVgg
from pipeline.features import extract, fine_tuning, vgg
from pipeline.runtime.errors import MmsslError
from pipeline.images.store import ImageSettings

vgg.vgg16 = TinyVgg
fine_tuning._CHECKPOINT_SECONDS = 0.0  # one at every step
seed_of = fine_tuning.seed_of
fine_tuning.seed_of = lambda *purpose: (time.sleep(0.01), seed_of(*purpose))[1]  # a step takes its time
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
print("begun", flush=True)
settings = fine_tuning.FeatureSettings(labelled=0.5, epochs=3, batch_size=4, learning_rate=1e-3, extract_batch=4)
try:
    extract.extract(
        "rgbd", Path(sys.argv[1]), [0, 3], ImageSettings(size=32), settings, weights="random", device="cpu"
    )
except MmsslError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def begun(process: "subprocess.Popen[str]") -> None:
    assert any(line == "begun\n" for line in process.stdout)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same(root: Path, undisturbed: dict[str, bytes]) -> None:
    chance = random.Random(1)
    kills = 0
    for _ in range(4):
        process = python(RUN, root)
        begun(process)
        time.sleep(chance.uniform(0.02, 0.5))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills  # it cannot be that all were done before
    process = python(RUN, root)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert contents(root) == undisturbed


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on(
    root: Path, undisturbed: dict[str, bytes], which: signal.Signals
) -> None:
    process = python(RUN, root)
    assert any("fine-tuning" in line for line in process.stdout)
    process.send_signal(which)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == Interrupted.exit_code, output
    assert f"stopped by {which.name}" in output
    extract(root, (0, 3))
    assert contents(root) == undisturbed


def test_side_by_side_it_is_the_same(
    root: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_in_process", in_process)
    reports = []
    assert len(extract(root, (0, 3), jobs=2, progress=lambda *step: reports.append(step))) == 2
    assert reports == [("units", k, 4) for k in range(5)]
    assert contents(root) == undisturbed


def test_a_process_that_dies_costs_its_split_alone(
    root: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_in_process", in_process_that_dies)
    with pytest.raises(TrainingError, match=r"1 failed, the others are done: split 3, depth: the process .* died"):
        extract(root, (0, 3), jobs=2)
    assert (root / "shards" / "rgbd-32-split-0.h5").exists()
    assert not (root / "shards" / "rgbd-32-split-3.h5").exists()
    extract(root, (0, 3))
    assert contents(root) == undisturbed


def test_asked_to_stop_side_by_side_it_goes_on_to_the_same_end(
    root: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_in_process", in_slow_process)

    def stop_once_under_way() -> None:
        deadline = time.monotonic() + 60
        while not list(root.rglob("*.checkpoint.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=stop_once_under_way)
    asking.start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        extract(root, (0, 3), jobs=2)
    asking.join()
    assert list(root.rglob("*.checkpoint.safetensors"))
    extract(root, (0, 3))
    assert contents(root) == undisturbed


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    """A cluster inside this process, where the tiny network is in place; its address."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=False,
        dashboard_address="127.0.0.1:0",
        resources=request.param,
    ) as local_cluster:
        yield local_cluster.scheduler_address


def test_objects_that_outlive_their_functions_change_no_byte(root: Path, undisturbed: dict[str, bytes]) -> None:
    """Dask's profiler holds every thread's frames for a moment: a data set closed late lay elsewhere in its file."""
    with references_kept():
        extract(root, (0, 3))
    assert contents(root) == undisturbed


@pytest.mark.parametrize("cluster", [{"GPU": 1}, None], indirect=True)
def test_on_a_cluster_it_is_the_same_and_a_worker_takes_one_at_a_time(
    root: Path, undisturbed: dict[str, bytes], cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = [], []
    compute = split_modality.compute

    def watched(unit: ExtractionTask, stop: Callable[[], None], progress: Progress | None) -> None:  # noqa: ARG001
        running.append(unit.name)
        most.append(len(running))
        compute(unit, stop)
        running.remove(unit.name)

    monkeypatch.setattr(executors, "compute", watched)
    reports = []
    assert len(extract(root, (0, 3), scheduler=cluster, progress=lambda *step: reports.append(step))) == 2
    assert reports == [("units on the cluster", k, 4) for k in range(5)]
    assert len(most) == 4
    assert max(most) == 1  # both workers are in this process, and a process takes one at a time
    assert contents(root) == undisturbed


@pytest.mark.parametrize("cluster", [None], indirect=True)
def test_a_request_to_stop_reaches_the_cluster(root: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runtime.cluster._DISTANT_POLL", 0.0)
    ended = []

    def endless(unit: ExtractionTask, stop: Callable[[], None], progress: Progress | None) -> None:  # noqa: ARG001
        deadline = time.monotonic() + 20
        try:
            while time.monotonic() < deadline:
                stop()
                time.sleep(0.02)
        except Interrupted:
            ended.append(unit.name)
            raise

    monkeypatch.setattr(executors, "compute", endless)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        extract(root, (0,), scheduler=cluster)
    timer.join()
    deadline = time.monotonic() + 10
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended
