"""`mmssl suggest` and `mmssl train --labels-from`, as a person uses them."""

import csv
import json
from pathlib import Path

import pytest

from pipeline.shards.shard import Shard
from tests.support.commands import Command, refused
from tests.support.training import NETWORKS, make_shard


def toml(model: str, path: Path) -> Path:
    lines = [f'"{name}" = "{text}"' for name, text in NETWORKS[model].items()]
    path.write_text("epochs = 2\nbatch_size = 32\n[networks]\n" + "\n".join(lines) + "\n")
    return path


def runs(folder: Path) -> list[Path]:
    return sorted(folder.glob("workspace/runs/*"))


def fill(path: Path, labels: list[str]) -> list[dict[str, str]]:
    """Writes labels into the first lines of a CSV."""
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    for row, label in zip(rows, labels, strict=False):
        row["label"] = label
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return make_shard(tmp_path / "clusters.h5")


def test_labels_come_back_and_are_trained_on(mmssl: Command, shard: Shard, tmp_path: Path) -> None:
    settings = toml("sshmvae-kl", tmp_path / "kl.toml")
    train = ("train", "sshmvae-kl", "--data", shard.path, "--config", settings, "--labels", 6, "--no-reference")
    assert mmssl(*train, "--seeds", "0..1").code == 0
    first = runs(tmp_path)
    done = mmssl("suggest", *first, "-n", 5, "--out", "ask.csv")
    assert done.code == 0, done.err
    rows = fill(tmp_path / "ask.csv", ["cup", "Bowl", "?", ""])
    assert len(rows) == 5
    assert {row["predicted"] for row in rows} <= set(shard.classes)
    given = {int(row["row"]) for row in rows[:3]}
    already = {line for run in first for line in (run / "labelled.txt").read_text().split()}
    assert not {row["id"] for row in rows} & already
    again = mmssl(*train, "--labels-from", "ask.csv", "--json")
    assert again.code == 0, again.err
    assert "2 labels, 1 never to be asked again" in again.err
    (result,) = json.loads(again.out)
    run = Path(result["folder"])
    assert "labels-6-and-2-" in run.name
    assert result["settings"]["answers"] == sorted(
        [int(row["row"]), label] for row, label in zip(rows, ["cup", "bowl", "?"], strict=False)
    )
    assert len((run / "labelled.txt").read_text().split()) == 8
    (tmp_path / "ask.csv").rename(tmp_path / "old.csv")  # the run does not need it any more
    assert mmssl("evaluate", run, "--no-reference").code == 0
    more = json.loads(mmssl("suggest", run, "-n", 500, "--out", "more.csv", "--json").out)["rows"]
    assert not {row["row"] for row in more} & given
    refused = mmssl("suggest", run, "--out", "old.csv")
    assert refused.code == 2
    assert "3 answers, which would be lost" in refused.err


@pytest.mark.parametrize("command", ["suggest", "label"])
def test_a_shard_that_the_run_was_not_trained_on_is_refused(
    mmssl: Command, shard: Shard, tmp_path: Path, command: str
) -> None:
    settings = toml("sshmvae-kl", tmp_path / "kl.toml")
    assert mmssl("train", "sshmvae-kl", "--data", shard.path, "--config", settings, "--labels", 6).code == 0
    other = make_shard(tmp_path / "OTHER.H5", dataset="others")
    (run,) = runs(tmp_path)
    where = ("--out", "rows.csv") if command == "suggest" else ("--port", 0)
    done = mmssl(command, run, "--data", other.path, *where)
    refused(done, 2, "OTHER.H5 is not the shard that", run.name)
    assert not (tmp_path / "rows.csv").exists()


def test_a_bundle_suggests_what_its_run_does(mmssl: Command, shard: Shard, tmp_path: Path) -> None:
    settings = toml("sshmvae-kl", tmp_path / "kl.toml")
    mmssl("train", "sshmvae-kl", "--data", shard.path, "--config", settings, "--labels", 6, "--no-reference")
    (run,) = runs(tmp_path)
    assert mmssl("export", run, "--out", "model").code == 0
    assert mmssl("suggest", run, "-n", 4, "--out", "run.csv").code == 0
    of_bundle = mmssl("suggest", "model", "-n", 4, "--out", "bundle.csv", "--data", shard.path)
    assert of_bundle.code == 0, of_bundle.err
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "bundle.csv").read_text()


def test_a_cold_start_needs_no_label_and_then_trains_with_a_class_of_its_own(
    mmssl: Command, shard: Shard, tmp_path: Path
) -> None:
    jmvae = toml("jmvae", tmp_path / "jmvae.toml")
    done = mmssl("train", "jmvae", "--data", shard.path, "--config", jmvae, "--labels", 0)
    assert done.code == 0, done.err
    (run,) = runs(tmp_path)
    assert mmssl("suggest", run, "-n", 6, "--out", "ask.csv").code == 0
    rows = fill(tmp_path / "ask.csv", ["cup", "bowl", "spoon", "saucer", "saucer", "cup"])
    assert all(row["predicted"] == row["disagreement"] == "" for row in rows)
    assert rows[0]["distance"] == ""
    settings = toml("sshmvae-kl", tmp_path / "kl.toml")
    train = ("train", "sshmvae-kl", "--data", shard.path, "--config", settings, "--labels", 0, "--no-reference")
    refused = mmssl(*train, "--labels-from", "ask.csv")
    assert refused.code == 1
    assert "there is no class 'saucer'" in refused.err
    done = mmssl(*train, "--labels-from", "ask.csv", "--new-classes", "--out", "grown")
    assert done.code == 0, done.err
    assert mmssl("export", "grown", "--out", "model").code == 0
    assert json.loads((tmp_path / "model/model.json").read_text())["classes"] == [*shard.classes, "saucer"]
    assert mmssl("suggest", run, "-n", 500, "--labels-from", "ask.csv", "--out", "more.csv").code == 0
    asked = {row["row"] for row in csv.DictReader((tmp_path / "more.csv").open(encoding="utf-8"))}
    assert not asked & {row["row"] for row in rows}
