"""What a terminal shows, and what a log gets in its place."""

import io
import logging
import re
from pathlib import Path

import pytest

from commands import messages, progress, tables
from tests.support.commands import Command
from tests.support.finished_runs import finished
from trainer.reporting.run_tables import ResultTable, ScoreRow, table


class Terminal(io.StringIO):
    """Takes what a terminal would get."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns would get on the error stream."""
    monkeypatch.setenv("TERM", "xterm")
    written = Terminal()
    monkeypatch.setattr(messages, "err", messages.Screen(file=written, width=80))
    return written


def plain(written: io.StringIO) -> str:
    return re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", written.getvalue())


def test_extraction_has_a_bar_with_rate_and_time_left_on_a_terminal(terminal: io.StringIO) -> None:
    with progress.extracting() as show:
        assert show is not None
        show("split 0, rgb: fine-tuning", 4, 8)
        show("split 0, rgb: fine-tuning", 8, 8)
        show("split 0, rgb: images", 64, 128)
        show("split 0, rgb: images", 128, 128)
    shown = plain(terminal)
    assert re.search(r"split 0, rgb: images ━+ 128/128 [\d.]+/s left 0:00:00", shown)
    assert max(map(len, shown.replace("\r", "\n").splitlines())) <= 80


def test_elsewhere_the_log_tells(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    written = io.StringIO()
    monkeypatch.setattr(messages, "err", messages.Screen(file=written))
    caplog.set_level(logging.INFO)
    with progress.extracting() as show:
        assert show is None
    with progress.counting("objects") as count:
        for done in range(1, 41):
            count(done, 40)
    assert written.getvalue() == ""
    assert [record.message for record in caplog.records] == [f"{done} of 40 objects" for done in range(4, 41, 4)]


def test_the_demos_table_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal()
    monkeypatch.setattr(messages, "out", messages.Screen(file=written, width=80))
    rows = [
        ScoreRow(setting, given, completion, 78.25, 1.0, 0.5, 0.1, 2)
        for setting in ("sshmvae", "sshmvae-kl, beta 1")
        for given, completion in (("x+w", "all given"), ("x", "iterative sampling"), ("w", "zeros"))
    ]
    tables.missing_cameras(ResultTable("demo, 50 epochs", tuple(rows)), classes=10)
    lines = plain(written).splitlines()
    assert lines[0].endswith("10 categories (chance 10 %), mean over 2 splits")
    table = [line for line in lines if line.startswith(("│", "┃"))]
    assert len(table) == 1 + len(rows)  # a cell that wraps would take a line more
    assert max(map(len, table)) <= 80


def test_results_say_what_plus_minus_is_and_compare_settings_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(messages, "out", messages.Screen(file=written))
    runs = [
        finished(tmp_path, "ssmvae", alpha=alpha, seed=seed, accuracies=[{"x": base + seed / 100, "x+w": 0.9}])
        for alpha, base in ((1.0, 0.5), (10.0, 0.52))
        for seed in range(3)
    ]
    tables.results(table(runs), runs[:1])
    lines = written.getvalue().splitlines()
    meaning = "mean ± half-width of the 95 % confidence interval (Student's t) over 3"
    assert f"{meaning} replicas (seeds)" in lines
    (title,) = (line for line in lines if line.startswith("Accuracy minus that of the first setting, "))
    assert "paired over 3 shared replicas; ± as above" in title
    assert any(re.search(r"│ alpha 10 │ x +│ zeros +│ \+2\.00 ± 0\.00 +│ 3", line) for line in lines)
    assert lines[-1] == str(runs[0].folder)
    written.truncate(0)
    tables.results(table(runs[:1]), [])
    assert "±" not in written.getvalue()
    assert "minus" not in written.getvalue()


def test_a_current_folder_that_was_removed_is_one_sentence(mmssl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    with monkeypatch.context() as patched:
        patched.setattr("cli.os.getcwd", gone)
        done = mmssl("runs")
    assert (done.code, "the current folder does not exist any more" in done.err) == (2, True)
