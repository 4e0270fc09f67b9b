"""The real commands, in this process for speed."""

import logging
import signal
import sys
from pathlib import Path

import pytest

import cli
from pipeline.runtime.interrupts import STOP_SIGNALS
from tests.support.commands import Command, CommandResult
from tests.support.small_networks import SSHMVAE_KL, SSMVAE, as_toml


@pytest.fixture
def mmssl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs a command in this process, in an empty folder, with its workspace there too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMSSL_ROOT", str(tmp_path / "workspace"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # a command has its own; the test's comes back

    def run(*arguments: object) -> CommandResult:
        handlers = {which: signal.getsignal(which) for which in STOP_SIGNALS}
        loggers = {name: logging.getLogger(name).handlers for name in ("mmssl", "pipeline", "trainer")}
        monkeypatch.setattr(sys, "argv", ["mmssl", *map(str, arguments)])
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as exit_:
                cli.main()
        finally:
            for which, handler in handlers.items():
                signal.signal(which, handler)
            for name, kept in loggers.items():  # the command's handlers write to a stream that ends with the test
                logging.getLogger(name).handlers = kept
        captured = capsys.readouterr()
        return CommandResult(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A settings file with small networks of ssmvae."""
    path = tmp_path / "small.toml"
    path.write_text(as_toml(SSMVAE))
    return path


@pytest.fixture
def small_kl(tmp_path: Path) -> Path:
    """A settings file with small networks of sshmvae-kl."""
    path = tmp_path / "small-kl.toml"
    path.write_text(as_toml(SSHMVAE_KL))
    return path
