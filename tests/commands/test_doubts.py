"""`mmssl doubts`, as a person uses it: wrong labels are listed first, corrected in the CSV, and trained on."""

import csv
import json
from pathlib import Path

import pytest

from pipeline.shards.shard import Shard
from tests.support.commands import Command
from tests.support.training import NETWORKS, W, X, clusters, make_shard, turns

LABELS = 24


def settings(model: str, folder: Path, *lines: str) -> Path:
    path = folder / f"{model}.toml"
    networks = [f'"{name}" = "{text}"' for name, text in NETWORKS[model].items()]
    path.write_text("\n".join(["epochs = 2", "batch_size = 32", *lines, "[networks]", *networks]) + "\n")
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return make_shard(tmp_path / "clusters.h5")


def trained(mmssl: Command, shard: Shard, config: Path, *options: object) -> tuple[Path, dict[str, object]]:
    done = mmssl("train", config.stem, "--data", shard.path, "--config", config, "--no-reference", "--json", *options)
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)
    return Path(result["folder"]), result["settings"]


def test_wrong_labels_are_found_and_corrected(mmssl: Command, shard: Shard, tmp_path: Path) -> None:
    labelled = trained(mmssl, shard, settings("sshmvae-kl", tmp_path), "--labels", LABELS)[0] / "labelled.txt"
    ids = labelled.read_text(encoding="utf-8").split()
    number = {str(name): row for row, name in enumerate(shard.train.ids)}
    wrong = {}
    for name in (ids[2], ids[11]):
        wrong[number[name]] = shard.classes[(shard.train.labels[number[name]] + 1) % len(shard.classes)]
    answers = ", ".join(f'[{row}, "{name}"]' for row, name in sorted(wrong.items()))
    config = settings("sshmvae-kl", tmp_path, f"answers = [{answers}]", f"labels = {LABELS}")
    run, _ = trained(mmssl, shard, config)

    command = ("doubts", run, "-n", 5, "--parts", 3, "--out", "doubts.csv")
    done = mmssl(*command, "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert (answer["judged"], len(answer["rows"])) == (LABELS, 5)
    assert {one["row"]: one["given"] for one in answer["rows"][:2]} == wrong
    assert answer["improbable"] >= 2
    for one in answer["rows"][:2]:
        assert one["probable"] == shard.classes[shard.train.labels[one["row"]]]
        assert one["given_probability"] < one["probability"] <= 1
        assert one["opinions"].keys() == {"x", "w"}

    rows = list(csv.DictReader((tmp_path / "doubts.csv").open(encoding="utf-8")))
    assert [int(row["row"]) for row in rows] == [one["row"] for one in answer["rows"]]
    assert all(not row["label"] and row["given"] for row in rows)
    for row in rows[:2]:
        row["label"] = row["predicted"]
    with (tmp_path / "corrected.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _, corrected = trained(
        mmssl, shard, settings("sshmvae-kl", tmp_path), "--labels", LABELS, "--labels-from", "corrected.csv"
    )
    assert {row for row, _ in corrected["answers"]} == wrong.keys()  # type: ignore[attr-defined]
    assert all(label == shard.classes[shard.train.labels[row]] for row, label in corrected["answers"])  # type: ignore[attr-defined]

    written = {path: path.stat().st_mtime_ns for path in run.rglob("weights.safetensors")}
    assert len(written) == 1 + 3
    again = mmssl(*command)
    assert again.code == 0, again.err
    assert f"of {LABELS} labels that could be judged" in again.out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("weights.safetensors")} == written
    listed = json.loads(mmssl("runs", "--json").out)
    assert len(listed) == 3  # the models that judged are none of them


def test_what_cannot_be_judged_is_said(mmssl: Command, shard: Shard, tmp_path: Path) -> None:
    run, _ = trained(mmssl, shard, settings("jmvae", tmp_path), "--labels", 0)
    done = mmssl("doubts", run)
    assert (done.code, done.out) == (2, "")
    assert "holds jmvae, which learns no labels" in done.err
    run, _ = trained(mmssl, shard, settings("sshmvae", tmp_path), "--labels", 3)
    done = mmssl("doubts", run)
    assert (done.code, done.out) == (2, "")
    assert "every label is the only one of its class" in done.err
    (tmp_path / "kept.csv").write_text("row,id,label\n0,a,cup\n")
    done = mmssl("doubts", run, "--out", "kept.csv")
    assert done.code == 2
    assert "1 answers, which would be lost" in done.err


@pytest.mark.parametrize("labels", [LABELS, "all"])
def test_streamed_data(mmssl: Command, tmp_path: Path, labels: object) -> None:
    """Each part that is held out leaves another number of rows to stream."""
    shard = make_shard(tmp_path / "known.h5", train=clusters("train", [*turns(31), *[-1] * 60], (X, W)))
    count = 24 if labels == LABELS else 31
    config = settings("sshmvae-kl", tmp_path, "window = 48", "propagation = 1")
    run, used = trained(mmssl, shard, config, "--labels", labels, "--batch-size", 4, "--epochs", 9)
    assert used["window"] == 48
    done = mmssl("doubts", run, "--parts", 4, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["judged"] == count
