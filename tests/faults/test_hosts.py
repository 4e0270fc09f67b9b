"""Three hosts, which are network namespaces on a bridge with processes of their own: one joins late, one is lost."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.faults import FULL, Stage
from tests.support.paths import ROOT
from tests.support.rgbd_frames import contents
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FULL, reason="three hosts take minutes: `make faults` has them")]
TAG = f"mm{os.getpid() % 10000}"
SCHEDULER = "tcp://10.199.77.1:8786"


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


class Host:
    """A namespace with an address; what runs in it sees no process of another one."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.name, self.folder = number, f"{TAG}h{number}", folder
        self.address = f"10.199.77.{number}"
        self.processes: list[subprocess.Popen[bytes]] = []
        sh("ip", "netns", "add", self.name)
        sh("ip", "link", "add", f"{TAG}v{number}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        sh("ip", "link", "set", f"{TAG}v{number}", "master", TAG, "up")
        sh("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        sh("ip", "-n", self.name, "link", "set", "eth0", "up")
        sh("ip", "-n", self.name, "link", "set", "lo", "up")

    def start(self, *command: str, log: Path, **environment: str) -> "subprocess.Popen[bytes]":
        inside = f'hostname host{self.number} && exec "$@"'
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
                 "--uts", "sh", "-c", inside, "sh", *command],
                stdout=out, stderr=subprocess.STDOUT,
                env=os.environ | {
                    "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300",
                    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
                } | environment,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def dask(self, role: str, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", role, *options]
        return self.start(*command, log=self.folder / f"{role}-{self.number}.log", **environment)

    def worker(self, sticks: int = 10**6, slow: float = 0.0) -> None:
        """Joins the cluster; after so many frames it never ends another one, and a step takes so many seconds more."""
        (self.folder / f"local-{self.number}").mkdir(exist_ok=True)
        self.dask(
            "worker", SCHEDULER, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", self.address,
            "--name", f"host{self.number}", "--local-directory", str(self.folder / f"local-{self.number}"),
            "--resources", "GPU=1", "--preload", "tests.support.on_a_host",
            MMSSL_TEST_USED=str(self.used), MMSSL_TEST_STICKS=str(sticks), MMSSL_TEST_SLOW=str(slow),
        )  # fmt: skip

    @property
    def used(self) -> Path:
        return self.folder / f"used-{self.number}"

    def lose(self) -> None:
        """Its cable is cut, then it loses power."""
        sh("ip", "link", "set", f"{TAG}v{self.number}", "down")
        self.end()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def remove(self) -> None:
        self.end()
        # The system removes it with the namespace, but later than the next test begins.
        subprocess.run(["ip", "link", "del", f"{TAG}v{self.number}"], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    if shutil.which("ip") is None or shutil.which("unshare") is None or os.geteuid():
        pytest.skip("several hosts on one machine need root, and the commands ip (iproute2) and unshare")
    try:
        sh("ip", "link", "add", TAG, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    started: list[Host] = []
    try:
        sh("ip", "link", "set", TAG, "up")
        for number in (1, 2, 3):
            started.append(Host(number, tmp_path))
        yield started
    finally:
        for host in started:
            host.remove()
        subprocess.run(["ip", "link", "del", TAG], capture_output=True)


def command(host: Host, stage: Stage, root: Path) -> "subprocess.Popen[bytes]":
    """The stage's command, on the cluster; its output goes to `command.log`."""
    words = stage.arguments(root)
    if "--workers" in words:
        at = words.index("--workers")
        del words[at : at + 2]
    driver = (sys.executable, "-m", "tests.support.on_a_host")
    return host.start(*driver, *words, "--scheduler", SCHEDULER, log=host.folder / "command.log")


def registered(host: Host) -> None:
    log = host.folder / f"worker-{host.number}.log"
    until(lambda: "Registered to" in log.read_text(), f"no worker on {host.name}", host.folder)


def scheduler(host: Host) -> None:
    host.dask("scheduler", "--host", host.address, "--port", "8786", "--dashboard-address", ":8787")


def without_places(outputs: dict[str, bytes]) -> dict[str, bytes]:
    """Tables say by which command and on which host they were made: as if without a cluster, and here."""
    here = f'"host": "{platform.node()}"'.encode()
    return {
        name: content.replace(f" --scheduler {SCHEDULER}".encode(), b"").replace(b'"host": "host1"', here)
        for name, content in outputs.items()
    }


def test_a_host_joins_late_and_one_is_lost(
    hosts: list[Host], stages: dict[str, Stage], tmp_path: Path, tally: Callable[..., None]
) -> None:
    first, second, third = hosts
    root = stages["preprocess"].workspace(tmp_path / "root")
    scheduler(first)
    second.worker(sticks=5)  # in its second object
    registered(second)
    log = tmp_path / "command.log"
    preprocess = command(first, stages["preprocess"], root)
    until(lambda: list(root.glob("images/*/*.h5")), "no object", tmp_path)
    third.worker()  # joins while the work is under way
    until(third.used.exists, "the late worker was not used", tmp_path)
    second.lose()
    assert preprocess.wait(timeout=120) == 0, log.read_text()
    assert stages["preprocess"].made(root) == stages["preprocess"].end
    messages = log.read_text()
    assert "Traceback" not in messages
    assert f"http://{first.address}:8787/status" in messages
    tally("preprocess on three hosts, one late and one lost: byte for byte as one process's")
    extract = command(first, stages["extract"], root)
    assert extract.wait(timeout=180) == 0, log.read_text()
    outputs = {name: content for name, content in contents(root).items() if name.startswith(("features/", "shards/"))}
    assert outputs == stages["extract"].end
    assert "Traceback" not in log.read_text()


def test_a_host_is_lost_in_extract_and_another_in_reproduce(
    hosts: list[Host], stages: dict[str, Stage], tmp_path: Path, tally: Callable[..., None]
) -> None:
    """In the midst of what they do: a worker that goes on with a lost one's run waits for its lease to run out."""
    first, second, third = hosts
    scheduler(first)
    for host in hosts:
        host.worker(slow=0.3)
    for host in hosts:
        registered(host)
    log = tmp_path / "command.log"
    for name, lost in (("extract", second), ("reproduce", third)):
        stage = stages[name]
        root = stage.workspace(tmp_path / name)
        lost.used.unlink(missing_ok=True)
        process = command(first, stage, root)
        until(lost.used.exists, f"host {lost.number} was not used", tmp_path)
        time.sleep(0.5)
        lost.lose()
        assert process.wait(timeout=400) == 0, log.read_text()
        assert without_places(stage.made(root)) == stage.end
        assert not list(root.rglob(".*.lease"))
        assert "Traceback" not in log.read_text()
        tally(f"{name} on three hosts, one lost in the midst of it: byte for byte as one process's")
