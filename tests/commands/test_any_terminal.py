"""Whole commands in any terminal's environment: JSON is JSON, in a pipe nothing is cut, and there is no traceback."""

import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands import messages
from pipeline.runtime.text import visible
from tests.support.commands import Command, start
from tests.support.small_shards import MakeShard

VARIABLES: dict[str, st.SearchStrategy[str]] = {
    "TERM": st.sampled_from(["", "dumb", "unknown", "xterm", "xterm-256color", "screen"]),
    "COLUMNS": st.integers(1, 500).map(str) | st.sampled_from(["", "0", "-1", "x"]),
    "LINES": st.sampled_from(["", "0", "1", "24"]),
    "NO_COLOR": st.sampled_from(["", "1"]),
    "FORCE_COLOR": st.sampled_from(["", "0", "1", "3", "true"]),
    "TTY_COMPATIBLE": st.sampled_from(["0", "1"]),
    "TTY_INTERACTIVE": st.sampled_from(["0", "1"]),
    "CI": st.sampled_from(["", "true"]),
    "GITHUB_ACTIONS": st.just("true"),
    "JUPYTER_COLUMNS": st.sampled_from(["10", "x"]),
}
CLASSES = ("[red]cup[/red]", "Schüssel", "カップ", "a" * 90)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Stream(io.TextIOWrapper):
    """What a command writes, as bytes of an encoding, to a terminal or a pipe."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        self.flush()
        written = self.buffer
        assert isinstance(written, io.BytesIO)
        return written.getvalue().decode(self.encoding)


def run_in(
    mmssl: Command, environment: Mapping[str, str], encoding: str, terminal: bool, *words: object
) -> tuple[int, str, str]:
    """A command's exit code and what it wrote, with other streams than the test's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        streams = [Stream(encoding, terminal) for _ in range(2)]
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        patch.setattr(messages, "out", messages.Screen())
        patch.setattr(messages, "err", messages.Screen(stderr=True))
        code = mmssl(*words).code
        return code, streams[0].text(), streams[1].text()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries({}, optional=VARIABLES),
    st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252", "euc_jp", "utf-16"]),
    st.booleans(),
)
def test_whole_commands(
    mmssl: Command, make_shard: MakeShard, environment: dict[str, str], encoding: str, terminal: bool
) -> None:
    shard = make_shard(Path("shard.h5"), classes=CLASSES).path

    def run(*words: object) -> tuple[int, str, str]:
        return run_in(mmssl, environment, encoding, terminal, *words)

    code, out, err = run("shards", "inspect", shard, "--json")
    assert (code, err) == (0, "")
    assert [found["name"] for found in json.loads(out)["classes"]] == list(CLASSES)

    code, out, err = run("shards", "inspect", shard)
    assert (code, err) == (0, "")
    shown = ESCAPES.sub("", out)
    assert "…" not in shown
    if encoding in ("utf-8", "utf-16") and not terminal:
        assert all(f" {visible(name)} " in shown for name in CLASSES)

    code, out, err = run("shards", "inspect", "nowhere.h5")
    assert (code, out) == (1, "")
    if not terminal:
        error, hint = ESCAPES.sub("", err).splitlines()
        assert error.startswith("error: nowhere.h5: cannot be read")
        assert hint.startswith("hint: ")

    code, out, err = run("shards", "inspect", "--help")
    assert (code, err) == (0, "")
    assert "--json" in ESCAPES.sub("", out) or environment.get("COLUMNS", "").isdigit()


LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict", "TERM": "dumb"},
    "unknown": {"LANG": "xx_YY.nothing", "LC_ALL": "", "PYTHONUTF8": "0", "COLUMNS": "3", "FORCE_COLOR": "1"},
}


@pytest.mark.parametrize("name", LOCALES)
def test_a_process_of_its_own_in_any_locale(name: str, make_shard: MakeShard, tmp_path: Path) -> None:
    shard = make_shard(classes=CLASSES).path
    out, err = start("shards", "inspect", shard, "--json", cwd=tmp_path, **LOCALES[name]).communicate(timeout=60)
    assert err == ""
    assert [found["name"] for found in json.loads(out)["classes"]] == list(CLASSES)
