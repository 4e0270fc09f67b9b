"""docs/extending.md is executed: its files are written, its lines added, and its commands run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILE = re.compile(r"Write `(?P<path>[^`]+)`:\n\n```python\n(?P<content>.*?)```", re.DOTALL)
LINE = re.compile(r"Add its line to `_FILES` in `(?P<path>[^`]+)`[^\n]*\n\n```python\n(?P<line>.*?\n)```", re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project with the page's model and data set."""
    copy = tmp_path / "checkout"
    for package in ("commands", "data_manifests", "pipeline", "trainer"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "cli.py", copy)
    for written in FILE.finditer(PAGE):
        (copy / written["path"]).write_text(written["content"], encoding="utf-8")
    for added in LINE.finditer(PAGE):
        registry = copy / added["path"]
        text = registry.read_text(encoding="utf-8")
        registry.write_text(re.sub(r"(_FILES = \{.*?)\n\}", rf"\1\n{added['line']}}}", text, count=1, flags=re.DOTALL))
    return copy


def test_the_page_has_one_file_and_one_line_for_each() -> None:
    assert [match["path"] for match in FILE.finditer(PAGE)] == ["trainer/models/poe.py", "pipeline/datasets/wine.py"]
    assert [match["path"] for match in LINE.finditer(PAGE)] == [
        "trainer/models/registry.py",
        "pipeline/datasets/registry.py",
    ]
    model = next(FILE.finditer(PAGE))["content"]
    assert len([line for line in model.splitlines() if line.strip()]) <= 60


@pytest.mark.slow
def test_what_the_page_says_works(checkout: Path, tmp_path: Path) -> None:
    def mmssl(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    help_text = mmssl("train", "--help")
    assert re.search(r"\bpoe\b", help_text)
    assert re.search(r"\bwine\b", help_text)
    training = next(line for line in PAGE.splitlines() if line.startswith("mmssl train poe"))
    table = mmssl(*training.split()[1:], "--device", "cpu")
    assert "poe, wine, 15 labels" in table
    folder = table.splitlines()[-1]
    ours, _, _ = table.partition("for reference")
    accuracies = {row[1]: float(row[2]) for row in re.finditer(r"│ ([xw+]+) +│ [^│]+│ ([\d.]+) ", ours)}
    assert set(accuracies) == {"x", "w", "x+w"}
    assert accuracies["x+w"] > 70  # chance: 40
    assert "ELBO per test example" in mmssl("evaluate", folder, "--device", "cpu")
    mmssl("generate", folder, "--from", "x", "--to", "w", "--out", "made.npz", "--device", "cpu")
    with np.load(tmp_path / "made.npz") as arrays:
        assert arrays["made"].shape == (1, 10, 6)
    mmssl("report", "--html", "report.html", "--device", "cpu")
    assert "PoE" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "wine" in mmssl("data", "list")
