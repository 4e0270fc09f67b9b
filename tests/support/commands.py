"""Commands as a user gives them, and what they leave behind."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.paths import ROOT


@dataclass(frozen=True)
class CommandResult:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The error's one line."""
        return next(line for line in self.err.splitlines() if line.startswith("error: "))


class Command(Protocol):
    """Runs a command; words may be given as numbers or paths."""

    def __call__(self, *arguments: object) -> CommandResult: ...


def start(*arguments: object, cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    """Starts a command as a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(result: CommandResult, code: int, *words: object) -> None:
    """Asserts that a command was refused: one line of error, these words in it or its hint, nothing printed."""
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.err
    for word in words:
        assert str(word) in result.err, result.err
