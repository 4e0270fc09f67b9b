"""Three hosts, which are network namespaces on a bridge with processes of their own: one joins late, one is lost."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.conftest import FULL, Stage, contents
from faults.zygote import ROOT

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
                    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "COLUMNS": "300",
                    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
                } | environment,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def dask(self, role: str, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", role, *options]
        return self.start(*command, log=self.folder / f"{role}-{self.number}.log", **environment)

    def worker(self, sticks: int = 10**6) -> None:
        """Joins the cluster; after so many frames it never ends another one."""
        (self.folder / f"local-{self.number}").mkdir(exist_ok=True)
        self.dask(
            "worker", SCHEDULER, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", self.address,
            "--name", f"host{self.number}", "--local-directory", str(self.folder / f"local-{self.number}"),
            "--resources", "GPU=1", "--preload", str(ROOT / "tests" / "faults" / "on_a_host.py"),
            MMSSL_TEST_USED=str(self.used), MMSSL_TEST_STICKS=str(sticks),
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
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    if shutil.which("ip") is None or shutil.which("unshare") is None or os.geteuid():
        pytest.skip("several hosts on one machine need root, and the commands ip (iproute2) and unshare")
    try:
        sh("ip", "link", "add", TAG, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    made: list[Host] = []
    try:
        sh("ip", "link", "set", TAG, "up")
        for number in (1, 2, 3):
            made.append(Host(number, tmp_path))
        yield made
    finally:
        for host in made:
            host.remove()
        subprocess.run(["ip", "link", "del", TAG], capture_output=True)


def until(condition: Callable[[], object], what: str, folder: Path, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what + "".join(
            f"\n{log.name}: {log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log"))
        )
        time.sleep(0.05)


def test_a_host_joins_late_and_one_is_lost(
    hosts: list[Host], stages: dict[str, Stage], tmp_path: Path, tally: Callable[..., None]
) -> None:
    one, two, three = hosts
    root = stages["preprocess"].workspace(tmp_path / "root")
    one.dask("scheduler", "--host", one.address, "--port", "8786", "--dashboard-address", ":8787")
    two.worker(sticks=5)  # in its second object
    until(lambda: "Registered to" in (tmp_path / "worker-2.log").read_text(), "no worker", tmp_path)
    log = tmp_path / "command.log"

    def command(stage: Stage) -> "subprocess.Popen[bytes]":
        words = [word for word in stage.arguments(root) if word not in ("--workers", "1")]
        driver = str(ROOT / "tests" / "faults" / "on_a_host.py")
        return one.start(sys.executable, driver, *words, "--scheduler", SCHEDULER, log=log)

    preprocess = command(stages["preprocess"])
    until(lambda: list(root.glob("images/*/*.h5")), "no object", tmp_path)
    three.worker()  # joins while the work is under way
    until(three.used.exists, "the late worker was not used", tmp_path)
    two.lose()
    assert preprocess.wait(timeout=120) == 0, log.read_text()
    assert stages["preprocess"].made(root) == stages["preprocess"].end
    said = log.read_text()
    assert "Traceback" not in said
    assert f"http://{one.address}:8787/status" in said
    tally("clusters of three hosts, one late and one lost: byte for byte as one process's")
    extract = command(stages["extract"])
    assert extract.wait(timeout=180) == 0, log.read_text()
    made = {name: content for name, content in contents(root).items() if name.startswith(("features/", "shards/"))}
    assert made == stages["extract"].end
    assert "Traceback" not in log.read_text()
