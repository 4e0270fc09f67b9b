"""kill -9, SIGTERM and a mad clock, at random moments of every command: the same command ends as if undisturbed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.faults import COMMANDS, Stage, Tally, count
from tests.support.zygote import Zygote


def disturbed(zygote: Zygote, stage: Stage, root: Path, after: float, which: signal.Signals) -> int:
    """Starts a stage and sends it a signal after some seconds; its exit code."""
    process = zygote.start(*stage.arguments(root), log=root / "log", slow=stage.slow)
    time.sleep(after)
    os.kill(process, which)  # ended or not: it waits to be read
    return zygote.wait(process)


def ends_right(zygote: Zygote, stage: Stage, root: Path) -> None:
    log = root / "log"
    assert zygote.run(*stage.arguments(root), log=log) == 0, log.read_text()
    assert stage.made(root) == stage.end
    assert not list(root.rglob(".*.partial"))
    assert not list(root.rglob(".*.lease"))
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments(
    name: str, zygote: Zygote, stages: dict[str, Stage], tmp_path: Path, tally: Tally
) -> None:
    stage, chance = stages[name], random.Random(name)
    wanted, hits, span = count(1, 17), 0, stage.seconds
    for _ in range(5 * wanted):
        root = stage.workspace(tmp_path / "root")
        code = disturbed(zygote, stage, root, chance.uniform(0, span), signal.SIGKILL)
        assert code in (0, -signal.SIGKILL), (root / "log").read_text()
        ends_right(zygote, stage, root)
        hits += code != 0
        span *= 0.8 if code == 0 else 1.0  # it was done already: the machine is less busy than it was
        if hits == wanted:
            break
    assert hits == wanted
    tally(f"kill -9 in {name}, ended bit for bit as undisturbed", hits)


@pytest.mark.parametrize("name", COMMANDS)
def test_asked_to_stop_at_random_moments(
    name: str, zygote: Zygote, stages: dict[str, Stage], tmp_path: Path, tally: Tally
) -> None:
    """From the first moment to the last: starting, reading, between objects, fine-tuning, extracting, evaluating."""
    stage, chance = stages[name], random.Random(name)
    stopped, total = 0, count(1, 20)
    for number in range(total):
        root = stage.workspace(tmp_path / "root")
        after = (number + chance.random()) / total * stage.seconds  # one in every part of it
        code = disturbed(zygote, stage, root, after, (signal.SIGTERM, signal.SIGINT)[number % 2])
        messages = (root / "log").read_text()
        assert code in (0, 75, -signal.SIGTERM), messages
        assert "Traceback" not in messages
        if code == 75:
            assert "error: stopped by" in messages
            assert "the same command" in messages
        assert not list(root.rglob(".*.partial")) or code < 0
        stopped += code == 75
        ends_right(zygote, stage, root)
    assert stopped or total < 3
    tally(f"SIGTERM or Ctrl-C in {name}: 75 or 0, then as undisturbed", total)


def test_a_clock_that_jumps(zygote: Zygote, stages: dict[str, Stage], tmp_path: Path, tally: Tally) -> None:
    """Forwards by a century and back at every look, while every step saves."""
    for stage in stages.values():
        root = stage.workspace(tmp_path / stage.name)
        log = root / "log"
        assert zygote.run(*stage.arguments(root), log=log, slow=stage.slow, clock=True) == 0, log.read_text()
        assert stage.made(root) == stage.end
        tally("commands under a clock that jumps, with the same result")


@pytest.mark.parametrize("name", COMMANDS)
def test_two_at_once(name: str, zygote: Zygote, stages: dict[str, Stage], tmp_path: Path, tally: Tally) -> None:
    """The second is told who is at it; the first, slowed down so that it is still there, is not disturbed."""
    stage = stages[name]
    root = stage.workspace(tmp_path / "root")
    first = zygote.start(*stage.arguments(root), log=root / "log", slow=0.2)
    deadline = time.monotonic() + 30
    while not list(root.rglob("*.lease")) and time.monotonic() < deadline:
        time.sleep(0.005)
    second = tmp_path / "second"
    assert zygote.run(*stage.arguments(root), log=second) == 1
    assert f"is being written by process {first} on " in second.read_text()
    assert second.read_text().count("error: ") == 1
    assert zygote.wait(first) == 0
    assert stage.made(root) == stage.end
    tally("second processes on an output that is being written: refused, and the first is undisturbed")
