"""What all tests share: small shards, real data where they are at hand, a disk that is soon full, counts to print."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the tensors are tiny, and on a busy machine threads wait

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from pipeline.shards.shard import Shard
from tests.support.faults import FULL
from tests.support.small_shards import MakePart, MakeShard, part_data, small_shard

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels then run on the CPU, as plain Python

settings.register_profile(
    "mmssl", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("mmssl")


@pytest.fixture(autouse=True)
def _no_shared_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test takes the user's own data by accident: those that want it ask for `real_data`."""
    monkeypatch.delenv("MMSSL_DATA", raising=False)


_REAL_DATA = os.environ.get("MMSSL_DATA")


@pytest.fixture
def real_data() -> Path:
    """The folder of real data (`mnist/`, `rgbd/`): MMSSL_DATA, or ../shared/data beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(_REAL_DATA) if _REAL_DATA else default
    if not folder.is_dir():
        pytest.skip(f"real data are not at hand: MMSSL_DATA is not set, and there is no {default}")
    return folder


@pytest.fixture
def make_part() -> MakePart:
    """`part_data`, for tests that change one thing about it."""
    return part_data


@pytest.fixture
def make_shard(tmp_path: Path) -> MakeShard:
    """Writes a small valid shard to `tmp_path/shard.h5`; keywords replace what `write_shard` is given."""

    def make(path: Path | None = None, **changes: Any) -> Shard:
        return small_shard(path or tmp_path / "shard.h5", **changes)

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own with room for 1 MB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
        )
    except OSError as error:
        pytest.skip(f"a full disk cannot be made here: {error}")
    if mounted.returncode:
        pytest.skip(f"a full disk cannot be made here (it needs root): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


_counts: Counter[str] = Counter()


@pytest.fixture
def tally() -> Callable[[str, int], None]:
    """Adds to a count that is printed when all is done."""

    def add(what: str, number: int = 1) -> None:
        _counts[what] += number

    return add


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends the counts of one of several processes to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counts"] = dict(_counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _counts.update(getattr(node, "workeroutput", {}).get("counts", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _counts:
        terminalreporter.section(f"faults ({'full' if FULL else 'few: MMSSL_FAULTS=full, or `make faults`, for all'})")
        for what, number in sorted(_counts.items()):
            terminalreporter.write_line(f"{number:7,d} {what}")
