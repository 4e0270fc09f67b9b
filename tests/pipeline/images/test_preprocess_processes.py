"""Preprocessing in several processes and on a cluster: killed, stopped, lost, and the same store in the end."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.images.store import ImageSettings, verify_object
from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.runtime.processes import this_process
from tests.support.paths import ROOT
from tests.support.preprocessing import preprocess
from tests.support.rgbd_frames import contents, python, references_kept, write_frames

Cluster = tuple[str, list["subprocess.Popen[str]"]]  # the scheduler's address, and its processes
RUN = """
import logging, sys
from pathlib import Path
from pipeline.runtime.errors import MmsslError
from pipeline.images.store import ImageSettings
from pipeline.images.preprocess import preprocess

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
    try:
        preprocess(
            "rgbd", Path(sys.argv[1]), ImageSettings(size=40), workers=int(sys.argv[2]),
            progress=lambda done, total: print("done", done, flush=True),
        )
    except MmsslError as error:
        print(error)
        sys.exit(error.exit_code)
"""


def wait_for(process: "subprocess.Popen[str]", done: int) -> None:
    for line in process.stdout:
        if re.fullmatch(rf"done {done}\n", line):
            return
    raise AssertionError(f"it ended before object {done}")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_object_it_goes_on_to_the_same_store(root: Path, undisturbed: Path, workers: int) -> None:
    dead = replace(this_process(), pid=2**22 + 1)  # more than there can be
    for done in (1, 3) if workers == 1 else (2,):
        process = python(RUN, root, workers)
        wait_for(process, done)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        gone, alive = psutil.wait_procs(children, timeout=15)
        assert not alive, f"left running: {alive}, ended: {gone}"
        assert not (root / "images" / "rgbd-40" / "index.json").exists()
    (root / "images" / "rgbd-40" / f".cup_4.h5.{dead}.partial").write_bytes(b"half")
    process = python(RUN, root, workers)
    process.communicate()
    assert process.returncode == 0
    assert contents(root / "images") == contents(undisturbed / "images")


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes that a command has started by now; what ends at this moment is none of them."""
    workers = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            if "spawn_main" in " ".join(child.cmdline()):
                workers.append(child)
    return workers


def test_a_killed_workers_tasks_are_done_again(root: Path, undisturbed: Path) -> None:
    # Frames enough that the worker is in the middle of them.
    process = python(RUN, root, 2)
    wait_for(process, 1)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    workers[0].kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert contents(root / "images") == contents(undisturbed / "images")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_keeps_what_is_done(tmp_path: Path, workers: int, which: signal.Signals) -> None:
    write_frames(tmp_path, {f"cup_{k}": 30 for k in range(1, 10)} | {"hat_1": 1, "hat_2": 1})
    process = python(RUN, tmp_path, workers)
    wait_for(process, 2)
    for receiving in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
        if receiving.pid == process.pid or which == signal.SIGINT:  # Ctrl-C reaches all processes of a terminal
            with contextlib.suppress(psutil.NoSuchProcess):
                receiving.send_signal(which)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == Interrupted.exit_code, output
    assert f"stopped by {which.name}" in output
    assert "Traceback" not in output
    assert "distributed" not in output  # Dask would tell in many words what its processes lose
    folder = tmp_path / "images" / "rgbd-40"
    assert len(list(folder.iterdir())) >= 2
    assert all(verify_object(path) for path in folder.iterdir())


def test_ctrl_c_while_the_workers_start(tmp_path: Path) -> None:
    """A terminal sends it to processes that are still importing, too: they must not tell of it."""
    write_frames(tmp_path)
    process = python(RUN, tmp_path, 2)
    parent = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while not (started := workers_of(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    for receiving in (parent, *started):
        receiving.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == Interrupted.exit_code, output
    assert "KeyboardInterrupt" not in output
    assert "Traceback" not in output


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A scheduler and two workers as a user starts them: processes of their own. Its address."""
    dask = Path(sys.executable).with_name("dask")
    started = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [dask, *arguments],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        )
        return started[-1]

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    address = next(m[0] for line in scheduler.stderr if (m := re.search(r"tcp://[\d.:]+", line)))
    for _ in range(2):
        start("worker", address, "--nthreads", "1", "--dashboard-address", "127.0.0.1:0", "--no-nanny")
    yield address, started
    for process in reversed(started):
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_cluster_makes_the_same_store(root: Path, undisturbed: Path, cluster: Cluster) -> None:
    address, processes = cluster
    preprocess(root, workers=None, scheduler=address)
    assert contents(root / "images") == contents(undisturbed / "images")
    for process in processes[1:]:
        assert process.poll() is None
    with pytest.raises(UsageError, match="--workers"):
        preprocess(root, ImageSettings(size=50), workers=2, scheduler=address)


@pytest.mark.slow
def test_a_lost_scheduler_is_one_sentence(tmp_path: Path, cluster: Cluster) -> None:
    address, processes = cluster
    write_frames(tmp_path, {f"cup_{k}": 30 for k in range(1, 10)} | {"hat_1": 1, "hat_2": 1})

    def kill(done: int, _: int) -> None:
        if done == 1:
            processes[0].kill()
            time.sleep(0.5)

    with pytest.raises(DataError, match=f"the Dask scheduler {re.escape(address)} was lost"):
        preprocess(tmp_path, ImageSettings(size=300), workers=None, scheduler=address, progress=kill)


def test_objects_that_outlive_their_functions_change_no_byte(root: Path, undisturbed: Path) -> None:
    with references_kept():
        preprocess(root)
    assert contents(root / "images") == contents(undisturbed / "images")


def test_a_scheduler_that_is_not_there_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runtime.cluster.CONNECT_SECONDS", 0.5)
    with pytest.raises(DataError, match=r"cannot reach a Dask scheduler at tcp://127\.0\.0\.1:9"):
        preprocess(root, workers=None, scheduler="tcp://127.0.0.1:9")
