"""Two processes on one output: the second is told who holds it, and a dead one's lease does not block."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.runtime import leases
from pipeline.runtime.errors import LeasedError, StorageError
from pipeline.runtime.leases import lease
from pipeline.runtime.processes import Process, host, this_process
from tests.support.paths import ROOT

HOLD = """
import sys, time
from pathlib import Path
from pipeline.runtime.leases import lease
from pipeline.runtime.errors import LeasedError
try:
    with lease(*map(Path, sys.argv[2:]), folders=sys.argv[1] == "folder"):
        print("held", flush=True)
        time.sleep(60)
except LeasedError as error:
    print(error)
"""
ELSEWHERE = Process("0123456789ab", 42, 7)


def hold(kind: str, *outputs: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, *map(str, outputs)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.6)


def foreign(place: Path, process: object = ELSEWHERE) -> Path:
    """A claim as another host would have made it."""
    path = place / ".0a1b.lease"
    path.write_text(json.dumps({"process": str(process), "host": "faraway"}) + "\n000000000000")
    return path


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Path]:
    """A claim in `tmp_path` of a process of another host, whose heart beats."""
    path, over = foreign(tmp_path), threading.Event()

    def beat() -> None:
        count = 0
        with path.open("r+") as file:
            while not over.wait(0.05):
                count += 1
                file.seek(len(path.read_text()) - 12)
                file.write(f"{count:012d}")
                file.flush()

    thread = threading.Thread(target=beat)
    thread.start()
    yield path
    over.set()
    thread.join()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_second_is_told_who_holds_it_and_a_killed_ones_claim_does_not_block(kind: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    first = hold(kind, output)
    with (
        pytest.raises(LeasedError, match=f"output is being written by process {first.pid} on {host()}") as caught,
        lease(output, folders=kind == "folder"),
    ):
        pass
    assert "then run the command again" in str(caught.value.hint)
    with lease(tmp_path / "output2", folders=kind == "folder"):
        pass
    end(first)
    left = list(tmp_path.rglob("*.lease"))
    assert len(left) == 1
    unfinished = (output if kind == "folder" else tmp_path) / f".output.{ELSEWHERE}.partial"
    unfinished.write_bytes(b"of another host, which held it before")
    with lease(output, folders=kind == "folder"):
        assert left != list(tmp_path.rglob("*.lease"))
        assert not unfinished.exists()
    assert not list(tmp_path.rglob("*.lease"))
    with lease(tmp_path / "new", folders=True):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists(), "a folder that the claim made, and in which nothing was written"


def test_a_number_that_another_process_has_now_is_a_dead_ones(tmp_path: Path) -> None:
    path = foreign(tmp_path, replace(this_process(), start=this_process().start - 1))
    with lease(tmp_path, folders=True):
        assert not path.exists()
    assert tmp_path.exists()


def test_a_process_that_has_ended_and_waits_to_be_read_is_dead(tmp_path: Path) -> None:
    first = hold("folder", tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    with lease(tmp_path, folders=True):
        pass
    first.communicate()


@pytest.mark.usefixtures("quick")
def test_a_heart_that_beats_on_another_host_is_alive(alive: Path) -> None:
    with (
        pytest.raises(LeasedError, match="is being written by process 42 on faraway"),
        lease(alive.parent, folders=True),
    ):
        pass
    assert alive.exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", [None, "", '{"process": "0123456789ab-4', "[]\n0"])
def test_a_heart_that_stands_still_is_a_dead_ones(content: str | None, tmp_path: Path) -> None:
    path = foreign(tmp_path)
    if content is not None:  # its maker died in the middle of writing it
        path.write_text(content)
    begun = time.monotonic()
    with lease(tmp_path, folders=True):
        assert not path.exists()
    assert time.monotonic() - begun > 0.6


@pytest.mark.usefixtures("quick")
def test_no_clock_decides_who_is_alive(alive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: random.SystemRandom().uniform(0, 4e9))
    for when in (0, 4_000_000_000):
        os.utime(alive, (when, when))
        with pytest.raises(LeasedError), lease(alive.parent, folders=True):
            pass
    over = foreign(alive.parent / "elsewhere") if (alive.parent / "elsewhere").mkdir() is None else alive
    os.utime(over, (4_000_000_000, 4_000_000_000))
    with lease(over.parent, folders=True):
        assert not over.exists()


@pytest.mark.usefixtures("quick")
def test_waiting_ends_when_the_holder_does(tmp_path: Path) -> None:
    first = hold("file", tmp_path / "archive.zip")
    waited: list[int] = []

    def wait() -> None:
        waited.append(1)
        if len(waited) == 2:
            end(first)

    with lease(tmp_path / "archive.zip", wait=wait):
        assert len(waited) >= 2


@pytest.mark.usefixtures("quick")
def test_who_was_silent_for_too_long_learns_that_the_claim_is_gone(tmp_path: Path) -> None:
    with lease(tmp_path, folders=True) as held:
        held.check()
        (path,) = held.files
        path.unlink()
        deadline = time.monotonic() + 5
        while held.lost is None and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LeasedError, match="was silent for so long"):
            held.check()


ASK = """
import os, sys, time
from pathlib import Path
from pipeline.runtime.leases import lease
from pipeline.runtime.errors import LeasedError
folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease(folder, folders=True):
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # two at once would fail here
        time.sleep(2.5)
        inside.unlink()
    print("did it")
except LeasedError:
    print("refused")
"""


def test_of_several_that_ask_at_once_one_gets_it(tmp_path: Path) -> None:
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path / "output"), str(tmp_path / "inside")],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in asking:
        outputs.append(process.communicate(timeout=60)[0])
    assert sorted(outputs) == ["did it\n", *["refused\n"] * 3]


def test_a_disk_that_refuses(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="the disk is read-only"), lease(small_disk / "run", folders=True):
        pass
    with pytest.raises(StorageError, match="the disk is read-only"), lease(small_disk / "file.h5"):
        pass
