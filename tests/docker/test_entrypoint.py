"""The image's entry point, run as it is, with an `mmssl` on PATH that tells how it was called."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[2] / "docker" / "entrypoint"
VARIABLES = ("AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A PATH whose `mmssl` prints its process and its arguments, one a line, and ends with CODE."""
    command = tmp_path / "mmssl"
    command.write_text('#!/bin/sh\necho "$$"\nfor one; do echo "<$one>"; done\nexit $CODE\n')
    command.chmod(0o755)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    def call(*arguments: str, code: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
        given = {"PATH": f"{folder}:/usr/bin:/bin", "CODE": str(code), **environment}
        return subprocess.run(
            [ENTRYPOINT, *arguments], env=given, capture_output=True, text=True, check=False, timeout=20
        )

    return call


def called(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line[1:-1] for line in done.stdout.splitlines()[1:]]


def test_without_an_array_it_is_mmssl(run: Run) -> None:
    done = run("train", "a b", "", "--split", "0..9", JOB_COMPLETION_INDEX="3")
    assert called(done) == ["train", "a b", "", "--split", "0..9"]
    assert done.stderr == ""


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_queues_index_becomes_the_split(run: Run, variable: str) -> None:
    done = run("array", "train", "sshmvae-kl", "--data", "a b.h5", **{variable: "7"})
    assert called(done) == ["train", "sshmvae-kl", "--data", "a b.h5", "--split", "7"]
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "variable", "value", "split"),
    [
        (["--first", "1"], "SLURM_ARRAY_TASK_ID", "1", "0"),
        (["--first=1"], "SLURM_ARRAY_TASK_ID", "10", "9"),
        ([], "SLURM_ARRAY_TASK_ID", "08", "8"),  # not octal
        ([], "SGE_TASK_ID", "1", "0"),  # Grid Engine and LSF cannot count from 0
        ([], "LSB_JOBINDEX", "10", "9"),
        ([], "PBS_ARRAY_INDEX", "0", "0"),
    ],
)
def test_arrays_that_count_from_1(run: Run, words: list[str], variable: str, value: str, split: str) -> None:
    assert called(run("array", *words, "extract", **{variable: value})) == ["extract", "--split", split]


def test_an_argument_may_say_where_the_index_stands(run: Run) -> None:
    done = run(
        "array",
        "predict",
        "model",
        "a b/{index}/rows-{index}.npz",
        "--out",
        "{index}.csv",
        "*",
        JOB_COMPLETION_INDEX="12",
    )
    assert called(done) == ["predict", "model", "a b/12/rows-12.npz", "--out", "12.csv", "*"]
    assert done.returncode == 0


def test_queues_that_agree_are_one(run: Run) -> None:
    assert called(run("array", "extract", **dict.fromkeys(VARIABLES, "0"))) == ["extract", "--split", "0"]


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_the_exit_code_is_mmssls(run: Run, code: int) -> None:
    assert run("array", "extract", code=code, JOB_COMPLETION_INDEX="3").returncode == code


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["extract"], {}, "no array index"),
        (["extract"], {"SLURM_ARRAY_TASK_ID": ""}, "no array index"),
        (["extract"], {"SLURM_ARRAY_TASK_ID": "two"}, "SLURM_ARRAY_TASK_ID is 'two', which is not a number"),
        (["extract"], {"AWS_BATCH_JOB_ARRAY_INDEX": "-1"}, "not a number"),
        (["extract"], {"JOB_COMPLETION_INDEX": "1 2"}, "not a number"),
        (["extract"], {"JOB_COMPLETION_INDEX": "$(touch x)"}, "not a number"),
        (["extract"], {"JOB_COMPLETION_INDEX": "1", "SLURM_ARRAY_TASK_ID": "2"}, "two array indices"),
        (["extract"], {"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}, "no array index"),
        (["--first", "1", "extract"], {"SLURM_ARRAY_TASK_ID": "0"}, "below the array's first index"),
        (["--first", "one", "extract"], {"SLURM_ARRAY_TASK_ID": "1"}, "--first is 'one'"),
        ([], {"JOB_COMPLETION_INDEX": "1"}, "no command"),
        (["extract", "--split", "3"], {"JOB_COMPLETION_INDEX": "1"}, "--split together with an array index"),
        (["extract", "--split=3"], {"JOB_COMPLETION_INDEX": "1"}, "--split=3 together with an array index"),
    ],
)
def test_no_usable_index_is_one_clear_error(
    run: Run, arguments: list[str], environment: dict[str, str], says: str
) -> None:
    done = run("array", *arguments, **environment)
    assert done.returncode == 2, "wrong usage: a queue must not try it again"
    assert done.stdout == "", "mmssl was started"
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint:  ")


def test_mmssl_takes_the_entry_points_place_and_hears_sigterm_when_it_is_ready(folder: Path) -> None:
    """A request to stop that comes before the command line has its handlers is kept for it: exit code 75."""
    (folder / "mmssl").write_text(
        f"#!{sys.executable}\n"
        "import os, signal, sys\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"  # nobody would survive it but for the entry point
        "print(os.getpid(), flush=True)\n"
        "import cli\n"
        "sys.argv[1:] = ['--version']\n"
        "cli.main()\n"
    )
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "JOB_COMPLETION_INDEX": "4",
        "PYTHONPATH": str(ENTRYPOINT.parents[1]),
    }
    with subprocess.Popen(
        [ENTRYPOINT, "array", "extract"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        out, err = process.communicate(timeout=30)
        assert int(out) == process.pid
    assert process.returncode == 75, err
    assert "stopped by SIGTERM" in err
