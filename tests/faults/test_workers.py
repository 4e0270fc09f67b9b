"""kill -9 of a worker of a Dask cluster in the midst of a unit of extract: the other one does it again."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.faults import FULL, Stage, count
from tests.support.paths import ROOT
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FULL, reason="a cluster takes a minute: `make faults` has it")]
ON_A_HOST = "tests.support.on_a_host"
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a Python process whose output goes to `NAME.log`."""
    started = []

    def begin(name: str, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=tmp_path,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | variables | environment,
            )
        started.append(process)
        return process

    yield begin
    for process in reversed(started):
        process.kill()
        process.wait()


def test_a_worker_is_killed_in_the_midst_of_a_unit(
    start: Start, stages: dict[str, Stage], tmp_path: Path, tally: Callable[..., None]
) -> None:
    stage, chance = stages["extract"], random.Random("worker")
    start("scheduler", "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0")
    log = tmp_path / "scheduler.log"
    until(lambda: "Scheduler at:" in log.read_text(), "no scheduler", tmp_path)
    address = next(word for word in log.read_text().split() if word.startswith("tcp://127.0.0.1:"))

    def worker(name: str) -> "subprocess.Popen[bytes]":
        return start(
            name, "-m", "dask", "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--local-directory", str(tmp_path / f"local-{name}"), "--preload", ON_A_HOST,
            MMSSL_TEST_USED=str(tmp_path / f"used-{name}"), MMSSL_TEST_SLOW="0.3",
        )  # fmt: skip

    worker("stays")
    for number in range(count(1, 3)):
        lost = worker(f"lost-{number}")
        root = stage.workspace(tmp_path / "root")
        command = start(f"command-{number}", "-m", ON_A_HOST, *stage.arguments(root), "--scheduler", address)
        until((tmp_path / f"used-lost-{number}").exists, "the worker was not used", tmp_path)
        before = set(root.glob("features/*/*.h5"))
        time.sleep(chance.uniform(0, 1))  # a unit takes several
        lost.kill()
        assert len(set(root.glob("features/*/*.h5")) - before) <= 1, "but for one by the worker that stays"
        assert command.wait(timeout=180) == 0, (tmp_path / f"command-{number}.log").read_text()
        assert stage.made(root) == stage.end
        assert not list(root.rglob(".*.partial"))
        assert not list(root.rglob(".*.lease"))
        assert "Traceback" not in (tmp_path / f"command-{number}.log").read_text()
        tally("kill -9 of a Dask worker in a unit of extract: the other one does it again, bit for bit")
