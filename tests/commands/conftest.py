"""The real commands: in this process for speed, in one of their own where signals and imports matter."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import cli

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ExperimentResult:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The error's one line."""
        return next(line for line in self.err.splitlines() if line.startswith("error: "))


Command = Callable[..., ExperimentResult]


@pytest.fixture
def mmssl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs a command in this process, in an empty folder, with its workspace there too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMSSL_ROOT", str(tmp_path / "workspace"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> ExperimentResult:
        handlers = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}
        loggers = {name: logging.getLogger(name).handlers for name in ("mmssl", "pipeline", "trainer")}
        monkeypatch.setattr(sys, "argv", ["mmssl", *map(str, arguments)])
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as exit_:
                cli.main()
        finally:
            for which, handler in handlers.items():
                signal.signal(which, handler)
            for name, own in loggers.items():  # the command's handlers write to a stream that ends with the test
                logging.getLogger(name).handlers = own
        said = capsys.readouterr()
        return ExperimentResult(int(exit_.value.code or 0), said.out, said.err)

    return run


def start(*arguments: object, cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    """Starts a command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
