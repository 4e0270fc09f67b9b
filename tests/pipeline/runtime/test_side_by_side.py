"""Tasks in several processes: each gets its share, one's death is its own, and a request to stop reaches them all."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.runtime.errors import Interrupted, StorageError
from pipeline.runtime.interrupts import Stop, stop_requests
from pipeline.runtime.side_by_side import side_by_side, unless_orphaned
from tests.support.paths import ROOT


def square_or_die(number: int) -> int:
    if number == 3:
        os._exit(9)
    return number * number


def facts() -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def until_stopped(folder: Path) -> int:
    """Says that it runs, and ends when it is asked to; says so, too."""
    with stop_requests() as stop:
        (folder / f"{os.getpid()}-runs").touch()
        while not stop.requested:
            time.sleep(0.02)
    (folder / f"{os.getpid()}-stopped").touch()
    return 0


def fail_or_wait(folder: Path, number: int) -> int:
    if number == 0:
        wait_for(folder, "*-runs", 1)
        raise StorageError("the disk is full")
    return until_stopped(folder)


def until_orphaned(folder: Path) -> None:
    check = unless_orphaned()
    (folder / "runs").touch()
    try:
        while True:
            check()
            time.sleep(0.02)
    except Interrupted:
        (folder / "stopped").touch()


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, f"no {count} of {pattern}"
        time.sleep(0.02)


def test_a_process_that_dies_ends_its_own_task_alone() -> None:
    tasks = ((str(number), (number,)) for number in range(6))
    results = side_by_side(square_or_die, tasks, Stop(), processes=2, threads=2, if_died=lambda key: -int(key))
    assert dict(results) == {"0": 0, "1": 1, "2": 4, "3": -3, "4": 16, "5": 25}


def test_each_takes_its_share_of_the_threads_and_the_next_task_once_it_is_idle() -> None:
    asked: list[int] = []

    def tasks() -> Iterator[tuple[int, tuple[()]]]:
        for number in range(4):
            asked.append(number)
            yield number, ()

    results = side_by_side(facts, tasks(), Stop(), processes=2, threads=4, if_died=lambda _: (0, 0))
    (_, (_, share)), before = next(results), len(asked)
    assert share == 2
    assert before == 2  # the third task was not asked for before a result was there
    assert len({pid for _, (pid, _) in results} | {0}) <= 3
    assert asked == [0, 1, 2, 3]


def test_a_request_to_stop_reaches_all_processes(tmp_path: Path) -> None:
    def ask() -> None:
        wait_for(tmp_path, "*-runs", 2)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    with stop_requests() as stop:
        asking.start()
        with pytest.raises(Interrupted, match="SIGTERM"):
            list(
                side_by_side(
                    until_stopped, [(k, (tmp_path,)) for k in range(3)], stop, processes=2, threads=2, if_died=int
                )
            )
    asking.join()
    assert len(list(tmp_path.glob("*-stopped"))) == 2  # the third never began


def test_an_error_that_ends_everything_stops_the_others(tmp_path: Path) -> None:
    tasks = [(k, (tmp_path, k)) for k in range(2)]
    with pytest.raises(StorageError, match="full"):
        list(side_by_side(fail_or_wait, tasks, Stop(), processes=2, threads=2, if_died=int))
    assert len(list(tmp_path.glob("*-stopped"))) == 1


def test_one_whose_parent_was_killed_stops(tmp_path: Path) -> None:
    parent = f"""
from pathlib import Path
from pipeline.runtime.interrupts import Stop
from pipeline.runtime.side_by_side import side_by_side
from tests.pipeline.runtime.test_side_by_side import until_orphaned

list(side_by_side(until_orphaned, [(0, (Path({str(tmp_path)!r}),))], Stop(), processes=1, threads=1, if_died=print))
"""
    with subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT) as process:
        wait_for(tmp_path, "runs", 1)
        process.kill()
    wait_for(tmp_path, "stopped", 1)


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(side_by_side(facts, [], Stop(), processes=2, threads=2, if_died=lambda _: (0, 0))) == []
