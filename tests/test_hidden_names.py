"""Other people's packages of our names, first on PYTHONPATH."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lowest import PYPROJECT, constraints
from tests.support.paths import ROOT

COMMAND = "import sys; sys.argv = ['mmssl', *sys.argv[1:]]; import mmssl; mmssl.main()"


def run(project: Path, code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs code in a process whose path names a project first, and then ours."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project.parent, env=os.environ | {"PYTHONPATH": f"{project}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("cli", "commands", "console", "data_manifests", "pipeline", "trainer"):
        (tmp_path / "project" / name).mkdir(parents=True)
        (tmp_path / "project" / name / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    return tmp_path / "project"


@pytest.mark.parametrize("arguments", [["--version"], ["runs"], ["preprocess", "rgbd", "--help"]])
def test_the_command_finds_its_own_modules(project: Path, arguments: list[str]) -> None:
    done = run(project, COMMAND, *arguments)
    assert done.returncode == 0, done.stderr
    assert "not this one" not in done.stderr


def test_processes_that_the_command_starts_find_them_too(project: Path) -> None:
    code = (
        "import multiprocessing, sys; import mmssl\n"
        "if __name__ == '__main__':\n"
        "    try: sys.argv = ['mmssl', '--version']; mmssl.main()\n"
        "    except SystemExit: pass\n"
        "    from pipeline.runtime.machine import cores\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.apply(cores))\n"
    )
    done = run(project, code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 1


def test_from_python_a_sentence_says_what_hides_them(project: Path) -> None:
    done = run(project, "import mmssl; mmssl.train")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: mmssl's package 'trainer'")
    assert str(project) in last


def test_the_lowest_versions_are_those_of_the_bounds() -> None:
    lines = constraints(PYPROJECT.read_text(), ["parquet"])
    assert {line.split("==")[0] for line in lines} >= {"torch", "typer", "dask", "pyarrow"}
    assert all(line.count("==") == 1 for line in lines)
    with pytest.raises(ValueError, match="numpy: has 0 lower bounds"):
        constraints("[project]\ndependencies = ['numpy']\n")
