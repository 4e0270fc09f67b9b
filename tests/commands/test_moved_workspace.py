"""A workspace that is moved after training: every command that reads runs finds their shard; and what is left out."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import Command, refused
from tests.support.small_networks import SSMVAE, as_toml
from tests.support.training import make_shard
from trainer.training.run_folder import Run

FAST = ("--epochs", 1, "--iterations", 1, "--device", "cpu", "--labels", 9, "--preset", "paper", "--no-reference")


@pytest.fixture
def moved(mmssl: Command, tmp_path: Path) -> tuple[Path, Path]:
    """A run in a workspace that has moved, and the workspace."""
    (tmp_path / "small.toml").write_text(as_toml(SSMVAE) + "\n")
    (tmp_path / "old" / "shards").mkdir(parents=True)
    make_shard(tmp_path / "old" / "shards" / "clusters.h5")
    done = mmssl("train", "ssmvae", "--data", "clusters", "--config", "small.toml", *FAST, "--root", "old")
    assert done.code == 0, done.err
    (tmp_path / "old").rename(tmp_path / "new")
    (run,) = (tmp_path / "new" / "runs").iterdir()
    return run, tmp_path / "new"


def test_every_command_finds_the_shard(mmssl: Command, moved: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = moved
    scores = json.loads((run / "result.json").read_text())["scores"]
    evaluated = mmssl("evaluate", run, "--device", "cpu", "--no-reference", "--json").json
    assert evaluated[0]["scores"] == scores
    for command in (
        ("generate", run, "--from", "x", "--to", "w", "--out", "made.npz", "--device", "cpu"),
        ("export", run, "--out", "model"),
        ("predict", run, root / "shards" / "clusters.h5", "--device", "cpu"),
        ("report", "--root", root, "--json", "report.json", "--device", "cpu"),
        ("train", "ssmvae", "--data", "clusters", "--config", "small.toml", *FAST, "--root", root),
    ):
        done = mmssl(*command)
        assert done.code == 0, done.err
    (reported,) = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert reported["provenance"]["shard"] == str(root / "shards" / "clusters.h5")
    assert list((root / "runs").iterdir()) == [run]  # the run is done, not trained again


def test_a_run_without_its_workspace_is_told_where_its_shard_is(
    mmssl: Command, moved: tuple[Path, Path], tmp_path: Path
) -> None:
    run, root = moved
    alone = tmp_path / "alone" / "a" / "run"
    shutil.copytree(run, alone)
    evaluate = ("evaluate", alone, "--device", "cpu", "--no-reference")
    refused(mmssl(*evaluate), 1, "clusters.h5", "--data FILE.h5")
    for places in (("--root", root), ("--data", root / "shards" / "clusters.h5"), ("--data", root)):
        done = mmssl(*evaluate, *places)
        assert done.code == 0, done.err
    make_shard(tmp_path / "other.h5", dataset="other")
    refused(mmssl(*evaluate, "--root", root, "--data", "other.h5"), 2, "other.h5 is not the shard")
    refused(mmssl(*evaluate, "--data", "absent.h5"), 1, "absent.h5")


def test_one_run_that_cannot_be_used_does_not_stop_the_others(mmssl: Command, moved: tuple[Path, Path]) -> None:
    run, root = moved
    broken, later = root / "runs" / "broken", root / "runs" / "later"
    shutil.copytree(run, broken)
    (broken / "weights.safetensors").write_bytes(b"")
    shutil.copytree(run, later)
    settings = json.loads((later / "settings.json").read_text())
    (later / "settings.json").write_text(json.dumps({**settings, "from_the_future": 1}))
    done = mmssl("evaluate", broken, run, later, "absent", "--device", "cpu", "--no-reference", "--json")
    assert done.code == 1
    assert [Path(one["folder"]) for one in done.json] == [run]
    assert "a newer version" in done.err
    assert done.err.count(" is left out: ") == 3
    assert done.sentence.startswith("error: 3 failed, the others are done: ")
    refused(mmssl("evaluate", later, "absent", "--device", "cpu"), 1, "2 failed, nothing else was to be done")
    refused(mmssl("evaluate", "absent", "--device", "cpu"), 1, "error: absent holds no run")
    assert Run.open(run).result() == Run.open(broken).result()
    done = mmssl("report", "--root", root, "--markdown", "report.md", "--no-models")
    assert done.code == 0
    assert "left out" in done.err
    done = mmssl("report", run, later, "--markdown", "report.md", "--no-models")
    assert done.code == 1
    assert mmssl("runs", "--root", root).code == 0
