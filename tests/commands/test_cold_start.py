"""From rows of which none has a label to a classifier, by the commands and by what they say comes next."""

import csv
import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from commands.next_step import _without_out
from tests.support.commands import Command, start

CLASSES = ("cup", "bowl", "hat")


def next_step(folder: Path, *arguments: object) -> tuple[str, str]:
    """What `mmssl label` says comes next when it is stopped at once: in words, and as a command."""
    process = start("label", *arguments, "--port", 0, cwd=folder, MMSSL_ROOT="workspace")
    assert process.stdout is not None
    while "at http" not in (line := process.stdout.readline()):
        assert line
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    *_, what, command = out.splitlines()
    return what, command


def answer(path: Path, labels: Sequence[str]) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, label in zip(rows, labels, strict=False):
        row["label"] = label
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_from_no_label_to_a_classifier(mmssl: Command, tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        done = mmssl(*arguments)
        assert done.code == 0, done.err
        return done.out

    rng, kind = np.random.default_rng(0), np.arange(60) % 3
    camera, touch = (rng.normal(3 * kind[:, None], 1, (60, 4)) for _ in range(2))
    np.savez(tmp_path / "rows.npz", camera=camera, touch=touch, label=np.full(60, -1))
    refused = mmssl("data", "import", "rows.npz", "--name", "mine")
    assert refused.code == 1
    assert "or name the classes that will have labels later: --class" in refused.err
    named = [word for name in CLASSES for word in ("--class", name)]
    run("data", "import", "rows.npz", "--name", "mine", *named)
    refused = mmssl("train", "sshmvae-kl", "--data", "mine")
    assert refused.code == 1
    assert "mmssl train jmvae --labels 0 makes a RUN that needs no label" in refused.err

    run("train", "jmvae", "--data", "mine", "--labels", 0, "--epochs", 1, "--device", "cpu")
    (cold,) = (tmp_path / "workspace/runs").iterdir()
    asked = run("suggest", cold, "-n", 4)
    assert "predicted" not in asked
    answer(tmp_path / "ask.csv", ["cup", "?", "", "hat"])
    what, command = next_step(tmp_path, cold, "-n", 4)
    assert what == "ask about more rows, since none is labelled bowl yet:"
    assert command == f"mmssl label {cold} --labels-from ask.csv --out ask-2.csv -n 4"

    run("suggest", *shlex.split(command)[2:])
    answer(tmp_path / "ask-2.csv", ["bowl"])
    what, command = next_step(tmp_path, *shlex.split(command)[2:])
    assert what == "train on the answers:"
    expected = "mmssl train sshmvae-kl --data mine --labels 0 --labels-from ask.csv --labels-from ask-2.csv"
    assert command == expected
    assert "3 labels" in run(*shlex.split(command)[1:], "--epochs", 1, "--device", "cpu")


def test_the_reason_why_one_run_cannot_be_trained_is_given_once(mmssl: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", camera=np.eye(6), touch=np.eye(6), label=np.full(6, -1))
    assert mmssl("data", "import", "rows.npz", "--name", "mine", "--class", "cup", "--class", "bowl").code == 0
    for seeds, times in (("0", 1), ("0,1", 3)):
        refused = mmssl("train", "sshmvae-kl", "--data", "mine", "--seeds", seeds)
        assert refused.code == 1
        assert refused.err.count("no labelled training example of class cup, bowl") == times, refused.err


def test_the_next_command_does_not_repeat_the_folder_of_the_run_that_asked() -> None:
    words = ["mmssl", "train", "ssmvae", "--out", "runs/a", "--data", "mine", "--out=runs/b"]
    assert _without_out(words) == ["mmssl", "train", "ssmvae", "--data", "mine"]
