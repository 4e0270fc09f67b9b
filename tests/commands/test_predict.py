"""`mmssl export` and `mmssl predict`, end to end."""

import csv
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.runtime.arrays import write_npz
from pipeline.shards.schema import Features, Scaling
from pipeline.shards.shard import Shard
from tests.support.commands import Command
from tests.support.training import W, X, clusters, make_settings, make_shard, run_stack, turns
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather
from trainer.inference.loading import load_run
from trainer.training.run_folder import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """A shard whose modality w is scaled, with rows of every pattern in its test part, and two seeds of sshmvae-kl."""
    folder = tmp_path_factory.mktemp("trained")
    test = clusters("test", [*turns(28), -1, -1], (X, W), seed=1)
    there = {"x": np.arange(30) % 3 != 1, "w": np.arange(30) % 3 != 2}
    test.features = {name: np.asarray(values) * there[name][:, None] for name, values in test.features.items()}
    test.present = there
    scaling = {"w": Scaling(np.zeros(3, np.float32), np.full(3, 4, np.float32))}
    shard = make_shard(folder / "shard.h5", test=test, scaling=scaling)
    stack = [make_settings("sshmvae-kl", shard, seed=seed, epochs=6, learning_rate=3e-2) for seed in (0, 1)]
    return shard.path, run_stack(folder / "runs", stack, [shard, shard])


@pytest.fixture(scope="module")
def exported(trained: tuple[Path, list[Run]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mmssl export` writes of both seeds."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    write_bundle(gather(trained[1]), folder)
    return folder


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """The bundle in another place."""
    return Path(shutil.copytree(exported, tmp_path / "moved"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_export_prints_what_the_model_reaches(trained: tuple[Path, list[Run]], mmssl: Command, tmp_path: Path) -> None:
    runs = trained[1]
    done = mmssl("export", runs[0].folder, "--out", tmp_path / "model", "--target-accuracy", "0.9")
    assert done.code == 0, done.err
    assert str(tmp_path / "model") in done.out
    assert "x+w" in done.out
    again = mmssl("export", runs[0].folder, "--out", tmp_path / "model", "--target-accuracy", "0.9", "--json")
    card = json.loads(again.out)
    assert card["target_accuracy"] == 0.9
    assert mmssl("export", *(run.folder for run in runs), "--out", tmp_path / "both").code == 0
    assert json.loads((tmp_path / "both" / "model.json").read_text())["seeds"] == [0, 1]
    assert "target" not in mmssl("export", runs[0].folder, "--out", tmp_path / "b", "--abstain-below", "0.7").err
    other = mmssl("export", runs[0].folder, "--out", tmp_path / "model")
    assert (other.code, "exists and holds something else" in other.err) == (1, True)
    both = mmssl("export", runs[0].folder, "--target-accuracy", "0.9", "--abstain-below", "0.7")
    assert (both.code, "exclude each other" in both.err) == (2, True)
    assert mmssl("export", tmp_path).code == 1


def test_a_shards_rows_are_answered_training_rows_too(
    trained: tuple[Path, list[Run]], model: Path, mmssl: Command, tmp_path: Path
) -> None:
    path, runs = trained
    done = mmssl("predict", model, path, "--out", "p.csv", "--probabilities", "--device", "cpu")
    assert done.code == 0, done.err
    rows = read(tmp_path / "p.csv")
    shard = Shard.open(path)
    assert [row["id"] for row in rows] == [*shard.train.ids, *shard.test.ids]
    labelled = {name for run in runs for name in run.labelled_ids()}
    assert {row["id"] for row in rows if row["given_in_training"] == "True"} == labelled
    assert [row["part"] for row in rows] == ["train"] * 40 + ["test"] * 30
    assert [row["given"] for row in rows[40:43]] == ["x+w", "w", "x"]
    assert rows[41]["x.label"] == rows[41]["x.probability"] == ""
    assert rows[68]["known_label"] == ""
    assert "70 rows" in done.out
    assert "given x+w: 50 rows" in done.out
    assert "rows with a known label not used in training" in done.out
    complete = np.flatnonzero(shard.test.has("x") & shard.test.has("w"))
    expected = np.mean([np.exp(load_run(run).trained.predictions(("x", "w"))[0]) for run in runs], axis=0)
    for row in complete[complete < 28]:
        got = [float(rows[40 + row][f"p({name})"]) for name in shard.classes]
        np.testing.assert_allclose(got, expected[row], atol=2e-6)


def raw(path: Path) -> tuple[dict[str, Features], list[str]]:
    """The test rows as a person has them: not scaled, NaN where missing."""
    shard = Shard.open(path)
    x = {}
    for m in shard.modalities:
        values = shard.test.features(m.name) * (4 if m.name == "w" else 1)
        x[m.name] = np.where(shard.test.has(m.name)[:, None], values, np.float32(np.nan))
    return x, shard.test.ids.tolist()


def test_rows_of_every_pattern_in_one_file_and_one_by_one_and_in_every_format(
    trained: tuple[Path, list[Run]], model: Path, mmssl: Command, tmp_path: Path
) -> None:
    x, ids = raw(trained[0])
    header = ["id", *(f"{name}.{k}" for name, values in x.items() for k in range(values.shape[1]))]
    lines = [
        [name, *("" if np.isnan(v) else repr(float(v)) for values in x.values() for v in values[row])]
        for row, name in enumerate(ids)
    ]
    with (tmp_path / "Zeilen mit Löffeln.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    write_npz(tmp_path / "rows.npz", {**x, "id": np.array(ids), "y": np.array(turns(30))})
    answers = {}
    for name, source in (("csv", "Zeilen mit Löffeln.csv"), ("npz", "rows.npz"), ("h5", trained[0])):
        done = mmssl("predict", model, source, "--out", f"{name}.csv", "--device", "cpu")
        assert done.code == 0, done.err
        answers[name] = [row for row in read(tmp_path / f"{name}.csv") if row["id"].startswith("test")]
    shared = ("id", "given", "label", "x.label", "w.label", "abstained")
    for ours, npz, shard in zip(answers["csv"], answers["npz"], answers["h5"], strict=True):
        assert [ours[k] for k in shared] == [npz[k] for k in shared] == [shard[k] for k in shared]
        assert float(ours["probability"]) == pytest.approx(float(shard["probability"]), abs=2e-6)
    for row in (0, 1, 2):
        (tmp_path / "one.csv").write_text("\n".join(map(",".join, (header, lines[row]))))
        done = mmssl("predict", model, "one.csv", "--json", "--device", "cpu")
        (alone,) = json.loads(done.out)["predictions"]
        assert alone["label"] == answers["csv"][row]["label"]
        assert alone["probability"] == pytest.approx(float(answers["csv"][row]["probability"]), abs=2e-6)
    assert mmssl("predict", model, "rows.npz", "--out", "p.json", "--device", "cpu").code == 0
    from_json = json.loads((tmp_path / "p.json").read_text())
    assert [row["label"] for row in from_json] == [row["label"] for row in answers["npz"]]
    assert from_json[1]["x.label"] is None


def test_parquet_is_written_where_pyarrow_is_installed(
    model: Path, mmssl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "rows.npz", {"x": np.full((3, 6), 0.5)})
    if find_spec("pyarrow") is not None:
        import pyarrow.parquet as parquet  # type: ignore[import-not-found,unused-ignore]

        assert mmssl("predict", model, "rows.npz", "--out", "p.parquet").code == 0
        assert parquet.read_table(tmp_path / "p.parquet")["given"].to_pylist() == ["x"] * 3
    monkeypatch.setattr("commands.prediction_files.find_spec", lambda _: None)
    done = mmssl("predict", model, "rows.npz", "--out", "q.parquet")
    assert (done.code, "Parquet files need pyarrow" in done.err) == (2, True)


def test_a_run_folder_and_pictures(
    trained: tuple[Path, list[Run]], mmssl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an encoder that stands in for `pipeline.features.encoder`: a picture's features are its bytes."""
    path, runs = trained
    shard = Shard.open(path)
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"encoder")

    class Encoder:
        @classmethod
        def open(cls, place: Path, device: str) -> Any:
            assert (place.read_bytes(), device) == (b"encoder", "cpu")
            return lambda pictures: np.stack([np.frombuffer(Path(p).read_bytes(), np.float32) for p in pictures])

    class Module:
        pass

    module: Any = Module()
    module.Encoder, module.locate = Encoder, lambda *_: kept
    monkeypatch.setattr("commands.encoders._module", lambda: module)
    without = mmssl("predict", runs[0].folder, "--rgb", kept)
    assert (without.code, "no modality that is a picture of --rgb" in without.err) == (2, True)
    recipes = {"x": {"modality": "rgb", "backbone": "tiny"}}
    with_encoder = make_shard(tmp_path / "pictures.h5", encoders=recipes)
    run = run_stack(tmp_path / "runs", [make_settings("sshmvae-kl", with_encoder)], [with_encoder])[0]
    assert mmssl("export", run.folder, "--out", "pictured").code == 0
    kept.unlink()
    (tmp_path / "a.png").write_bytes(shard.test.features("x")[0].tobytes())
    done = mmssl("predict", "pictured", "--rgb", "a.png", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["predictions"]
    assert (row["id"], row["given"]) == ("a.png", "x")
    log_q, _ = load_run(run).trained.predictions(("x",))
    same_row = np.allclose(with_encoder.test.features("x")[0], shard.test.features("x")[0])
    assert not same_row or row["probability"] == pytest.approx(float(np.exp(log_q[0].max())), abs=2e-6)
    assert (mmssl("predict", "pictured", "--rgb", "none.png").code, (tmp_path / "none.png").exists()) == (1, False)
    assert mmssl("export", run.folder, "--out", "bare", "--no-encoders").code == 0
    bare = mmssl("predict", "bare", "--rgb", "a.png")
    assert bare.code == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", "has no rows below its header"),
        ("a.csv", "name,age\n1,2\n", "its columns name neither pictures nor vectors"),
        ("a.csv", "x.0,x.2\n1,2\n", "the column x.1 is missing, though there is x.2"),
        ("a.csv", "x.0,x.0\n1,2\n", "has the column 'x.0' twice"),
        ("a.csv", "x.0,x.1\n1\n", "has 1 cells, but the header names 2 columns"),
        ("a.csv", "x.0,x.1\n", "has no rows"),
        ("a.csv", "x.0,x.1\n1,cup\n", "x.1 is 'cup', not a number"),
        ("a.csv", "x.0,x.1\n1,2\n", "the model takes rows of 6 values"),
        ("a.csv", "v.0\n1\n", "no modality 'v'"),
        ("a.csv", "x.0,x.1,x.2,x.3,x.4,x.5\n,,,,,\n", "has no rows"),
        ("a.csv", "id,x.0,x.1,x.2,x.3,x.4,x.5\na,,,,,,\n", "no row has any value of any modality"),
        ("a.csv", "x.0,x.1,x.2,x.3,x.4,x.5\n1,,,,,\n", "x has 1 numbers of 6 in line 2"),
        ("a.csv", "x.0,x.1,x.2,x.3,x.4,x.5\n1,2,3,4,5,6\n", "outside the [0, 1]"),
        ("a.csv", b"\xff\xfe\x00", "begins as UTF-16-LE text"),
        ("a.npz", b"PK", "is not an intact file of NumPy arrays"),
        ("x.npy", b"NUMPY", "is not an intact file of NumPy arrays"),
        ("a.txt", "x", "is of no form that can be read"),
        ("a.h5", b"x", "is not an HDF5 file"),
        ("metadata.csv", "rgb_file_name\na.png\n", "not one of its rows has its pictures"),
    ],
)
def test_sources_that_cannot_be_predicted_are_named(
    name: str, content: str | bytes, sentence: str, model: Path, mmssl: Command, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    done = mmssl("predict", model, name, "--out", "p.csv", "--device", "cpu")
    assert done.code == 1
    assert sentence in done.err
    assert f"error: {name}" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "p.csv").exists()


def test_rows_with_nothing_are_left_out_and_labels_are_compared(
    trained: tuple[Path, list[Run]], model: Path, mmssl: Command, tmp_path: Path
) -> None:
    shard = Shard.open(trained[0])
    x = np.full((5, 6), 0.5, np.float32)
    x[1] = np.nan
    ids = np.array(["a", "b", "c", "d", next(name for name in trained[1][0].labelled_ids())])
    label = np.array([shard.classes[0], shard.classes[0], "teapot", "", shard.classes[1]])
    write_npz(tmp_path / "rows.npz", {"x": x, "id": ids, "label": label, "day": np.arange(5)})
    done = mmssl("predict", model, "rows.npz", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert [row["known_label"] for row in answer["predictions"]] == [label[0], "teapot", None, label[4]]
    assert answer["left_out"] == {"row 1": "has no modality at all"}
    assert "columns that are not used: day" in done.err
    known = answer["summary"]["known"]
    assert (known["rows"], known["ids of labelled training rows"], known["other labels"]) == (2, 1, {"teapot": 1})
    shown = mmssl("predict", model, "rows.npz", "--device", "cpu")
    assert "left out: row 1: has no modality at all" in shown.err
    for words in (
        "of 2 rows with a known label\n",
        "1 of these have the id of",
        "no class of the model, such as 'teapot'",
    ):
        assert words in shown.out


def test_a_report_leaves_out_rows_without_the_given_modalities(
    trained: tuple[Path, list[Run]], mmssl: Command, tmp_path: Path
) -> None:
    """The shard's test rows lack x or w in turn: pictures of one modality are of those that have it."""
    run = trained[1][0].folder
    done = mmssl("report", run, "--html", "r.html", "--device", "cpu")
    assert done.code == 0, done.err
    assert "could not be drawn" not in (tmp_path / "r.html").read_text()
    assert mmssl("generate", run, "--from", "x", "--to", "w", "--out", "made.npz", "--device", "cpu").code == 0
    with np.load(tmp_path / "made.npz") as made:
        assert (np.abs(made["true"]).sum(-1) > 0).all()


def test_npz_files_and_shards_that_do_not_fit(model: Path, mmssl: Command, tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"x": np.zeros((3, 6)), "w": np.zeros((4, 3))})
    assert "w has 4 rows, but x has 3" in mmssl("predict", model, "a.npz").err
    write_npz(tmp_path / "b.npz", {"y": np.zeros(3)})
    assert "there is no array of vectors in it" in mmssl("predict", model, "b.npz").err
    write_npz(tmp_path / "c.npz", {"x": np.zeros(3)})
    assert "there is no array of vectors in it" in mmssl("predict", model, "c.npz").err
    narrow = make_shard(tmp_path / "narrow.h5", (X.__class__("x", 5, "bernoulli"),))
    assert "x has 5 columns, but the model takes 6" in mmssl("predict", model, narrow.path).err
    other = make_shard(tmp_path / "other.h5", (X.__class__("touch", 5, "bernoulli"),))
    assert "has none of the model's modalities (x, w), only touch" in mmssl("predict", model, other.path).err


def test_commands_that_make_no_sense(model: Path, mmssl: Command, tmp_path: Path) -> None:
    for arguments, sentence in (
        ((model,), "takes a SOURCE, or pictures"),
        ((model, "a.csv", "--rgb", "a.png"), "takes a SOURCE, or pictures"),
        ((model, "a.csv", "--out", "p.docx"), "predictions are written as .csv, .json, .parquet"),
        ((model, "--depth", "a.png"), "no modality that is a picture of --depth"),
    ):
        (tmp_path / "a.png").write_bytes(b"x")
        done = mmssl("predict", *arguments)
        assert (done.code, sentence in done.err) == (2, True), done.err
    assert "nowhere.csv: there is no such file or folder" in mmssl("predict", model, "nowhere.csv").err
    assert "holds neither a bundle nor a run" in mmssl("predict", tmp_path, "nowhere.csv").err


def test_the_rows_are_not_overwritten_by_their_answers(model: Path, mmssl: Command, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("w.0,w.1,w.2\n1,2,3\n")
    for out in (rows, tmp_path / "linked.csv"):
        if out != rows:
            out.symlink_to(rows)
        done = mmssl("predict", model, rows, "--out", out)
        assert done.code == 2
        assert "is the file that the rows are read from" in done.err
    assert rows.read_text() == "w.0,w.1,w.2\n1,2,3\n"
