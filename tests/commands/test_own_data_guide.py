"""docs/guide/own-data.md is executed: its two worked examples, block by block, as they stand.

Only what takes long is made small: pictures of 64 pixels through ResNet-18 (SMALLER, words added to a command that
begins so), and two epochs of training. The paths, the options and the Python are the page's own.
"""

import csv
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/guide/own-data.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SMALLER = {
    "data import my-pictures": ["--size", "64", "--workers", "1"],
    "extract": ["--size", "64", "--backbone", "resnet18", "--device", "cpu"],
    "train": ["--epochs", "2", "--device", "cpu"],
}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def follow(title: str, mmssl: Command, place: Path) -> str:
    """Runs a section's blocks in order, and returns what its commands print."""
    printed = ""
    for language, content in BLOCK.findall(section(title)):
        if language == "python":
            names: dict[str, Any] = {}
            exec(compile(content, f"own-data.md, {title}", "exec"), names)
        for line in [] if language else content.splitlines():
            name, *words = shlex.split(line, comments=True)
            assert name == "mmssl", line
            words = [path for word in words for path in (sorted(map(str, place.glob(word))) if "*" in word else [word])]
            more = next((more for start, more in SMALLER.items() if " ".join(words).startswith(start)), [])
            done = mmssl(*words, *more)
            assert done.code == 0, f"{line}: {done.err}"
            printed += done.out
    return printed


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_pictures(mmssl: Command, tmp_path: Path) -> None:
    printed = follow("From a folder of pictures to predictions", mmssl, tmp_path)
    for words in ("140 rows, 98 of them with every modality", "24 groups, none of them in both parts", "rgb+depth"):
        assert words in printed
    found = rows(tmp_path / "named.csv")
    assert len(found) == 140
    assert {row["given"] for row in found} == {"rgb+depth", "rgb", "depth"}
    assert sum(row["known_label"] == "" for row in found) == 71
    assert (tmp_path / "sheet.png").exists()


def test_vectors(mmssl: Command, tmp_path: Path) -> None:
    printed = follow("From vectors to predictions", mmssl, tmp_path)
    assert "1797 rows, 570 of them with every modality" in printed
    found = rows(tmp_path / "named-halves.csv")
    assert len(found) == 1797
    assert {row["given"] for row in found} == {"left+right", "left", "right"}


@pytest.mark.parametrize("title", ["From a folder of pictures to predictions", "From vectors to predictions"])
def test_the_examples_use_every_step(title: str) -> None:
    commands = [
        line.split()[1] for kind, block in BLOCK.findall(section(title)) if not kind for line in block.splitlines()
    ]
    assert {"data", "train", "export", "predict"} <= set(commands)
