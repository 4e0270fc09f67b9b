"""What is printed is what it says: any name, on any stream, in any terminal's environment."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import messages
from pipeline.runtime.errors import DataError
from pipeline.runtime.text import visible

TERMINALS = st.fixed_dictionaries(
    {},
    optional={
        "FORCE_COLOR": st.sampled_from(["", "0", "1", "3"]),
        "NO_COLOR": st.sampled_from(["", "1"]),
        "TTY_COMPATIBLE": st.sampled_from(["0", "1"]),
        "COLUMNS": st.sampled_from(["0", "1", "7", "80", "x"]),
        "TERM": st.sampled_from(["dumb", "xterm-256color", ""]),
    },
)
NAMES = st.text(st.characters(), min_size=1, max_size=30) | st.sampled_from(["[red]", "[/s]", ":100:", "a" * 300])
ENCODINGS = st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252", "shift_jis"])


class Streams:
    """Standard output and error as bytes, with a console of their environment."""

    def __init__(self, encoding: str, environment: dict[str, str]) -> None:
        self.encoding, self.environment = encoding, environment

    def __enter__(self) -> "Streams":
        self.patch = pytest.MonkeyPatch()
        for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLUMNS", "TERM"):
            self.patch.delenv(name, raising=False)
        for name, value in self.environment.items():
            self.patch.setenv(name, value)
        self.out, self.err = (io.TextIOWrapper(io.BytesIO(), encoding=self.encoding) for _ in range(2))
        self.patch.setattr(sys, "stdout", self.out)
        self.patch.setattr(sys, "stderr", self.err)
        self.patch.setattr(messages, "out", messages.Screen())
        self.patch.setattr(messages, "err", messages.Screen(stderr=True))
        messages.use_any_encoding()
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def text(self, stream: Any) -> str:
        stream.flush()
        return str(stream.buffer.getvalue().decode(self.encoding))


@given(NAMES, ENCODINGS, TERMINALS)
def test_json_is_json(name: str, encoding: str, environment: dict[str, str]) -> None:
    with Streams(encoding, environment) as streams:
        messages.as_json({"classes": [name], "path": Path(f"/{name}"), "nll": float("nan"), "accuracy": 0.5})
        read = json.loads(streams.text(streams.out))
    assert read == {"classes": [name], "path": str(Path(f"/{name}")), "nll": None, "accuracy": 0.5}


@given(NAMES, ENCODINGS, TERMINALS)
def test_a_table_a_line_and_an_error_are_whole(name: str, encoding: str, environment: dict[str, str]) -> None:
    with Streams(encoding, {key: value for key, value in environment.items() if "COLOR" not in key}) as streams:
        table = messages.Table("class", name, title=name)
        table.add_row(name, messages.styled(name, "bold"))
        messages.show(table)
        messages.say(name)
        messages.complain(DataError(name, name))
        out, err = streams.text(streams.out), streams.text(streams.err)
    if encoding == "utf-8" and environment.get("TTY_COMPATIBLE") != "1":
        shown = visible(name)
        assert out.count(shown) >= 4
        assert err.splitlines() == [f"error: {shown}", f"hint:  {shown}"]


def test_streams_that_were_closed_take_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)  # as Python does it
    messages.use_any_encoding()
    opened = sys.stdout, sys.stderr
    for stream in opened:
        stream.write("nobody reads this")
        stream.close()


def test_the_path_in_a_pipe_is_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "sweep:100:[old] mütze"
    folder.mkdir()
    with Streams("ascii", {"FORCE_COLOR": "1", "COLUMNS": "20"}) as streams:
        messages.say_path(folder)
        printed = streams.out.buffer.getvalue()
    assert Path(printed.decode().removesuffix("\n")).is_dir()


def test_how_a_user_calls_this_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("bin", "my bin"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mmssl").touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    called = {"bin/mmssl": "mmssl", str(tmp_path / "bin/mmssl"): "mmssl", "my bin/mmssl": "'my bin/mmssl'",
              "/srv/cli.py": "mmssl", "-c": "mmssl"}  # fmt: skip
    for name, expected in called.items():
        monkeypatch.setattr(sys, "argv", [name])
        assert messages.own_name() == expected
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bin/mmssl"])
    assert messages.own_name() == "bin/mmssl"
