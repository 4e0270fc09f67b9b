"""A signal ends a command wherever it comes, with one sentence."""

import subprocess
import sys

import pytest

from pipeline.runtime.interrupts import STOP_SIGNALS

# What is raised while a destructor runs, Python drops.
_COMMAND = """
import signal, sys, time
if signal.getsignal(signal.{name}) is signal.SIG_IGN:  # `nohup make test`
    signal.signal(signal.{name}, signal.SIG_DFL)
import cli

class Dying:
    def __del__(self):
        signal.raise_signal(signal.{name})

@cli.app.command()
def wait():
    Dying()
    time.sleep(60)

sys.argv = ["mmssl", "wait"]
cli.main()
"""


@pytest.mark.parametrize("name", [which.name for which in STOP_SIGNALS])
def test_a_signal_in_a_destructor_is_not_lost(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _COMMAND.format(name=name)], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 75
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count(f"stopped by {name}") == 1


def test_other_errors_of_a_destructor_are_printed_as_ever() -> None:
    command = _COMMAND.format(name="SIGTERM").replace("signal.raise_signal(signal.SIGTERM)", "raise ValueError('odd')")
    command = command.replace("time.sleep(60)", "pass")
    ended = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0
    assert "ValueError: odd" in ended.stderr
