"""From a folder of pictures to predictions by the commands, with a real encoder: ResNet-18 with random weights."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmssl as python
from pipeline.shards.shard import Shard
from tests.support.commands import Command, refused
from tests.support.plain_folder import write_plain_folder
from trainer.inference.loading import load_run
from trainer.training.run_folder import Run

SIZE, CLOSE = 64, 2e-5
CAMERAS = ("rgb", "depth")


def files_of(folder: Path, row: str) -> dict[str, Path]:
    """The pictures of a row: `RECORDING/LABEL/0007` has `RECORDING/LABEL/rgb/0007.png`."""
    place = folder / row
    found = {camera: place.parent / camera / f"{place.name}.png" for camera in CAMERAS}
    return {camera: path for camera, path in found.items() if path.exists()}


def read(path: Path, classes: tuple[str, ...]) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """By id, the given modalities and the probabilities of a CSV file of predictions."""
    with path.open(newline="") as file:
        return {
            row["id"]: (row["given"], np.array([float(row[f"p({name})"]) for name in classes]))
            for row in csv.DictReader(file)
        }


def test_a_bundle_of_ones_own_pictures_predicts_them_anywhere(
    mmssl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_plain_folder(tmp_path / "my pictures", tmp_path / "scratch")

    def run(*arguments: object) -> str:
        done = mmssl(*arguments)
        assert done.code == 0, done.err
        return done.out

    imported = run(
        "data", "import", folder, "--name", "mine", "--size", SIZE, "--group", "folder", "--test", 0.5, "--workers", 1
    )
    assert "36 rows" in imported
    run("extract", "--data", "mine", "--size", SIZE, "--weights", "random", "--backbone", "resnet18", "--device", "cpu")
    trained = run("train", "sshmvae-kl", "--data", "mine", "--epochs", 2, "--device", "cpu")
    assert "pooling product" in trained
    (runs,) = (tmp_path / "workspace" / "runs").iterdir()
    run("export", runs, "--out", "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"encoder-rgb.safetensors", "model.json"}

    loaded = load_run(Run.open(runs))
    shard = Shard.open(tmp_path / "workspace" / "shards" / "mine.h5")
    (examples,) = loaded.data.examples
    test_ids = shard.test.ids[examples.test - shard.train.rows].tolist()
    subsets: dict[tuple[str, ...], Any] = {
        given: np.exp(loaded.trained.predictions(given)[0]) for given in (CAMERAS, ("rgb",), ("depth",))
    }
    shutil.rmtree(tmp_path / "workspace")
    elsewhere = tmp_path / "a robot"
    elsewhere.mkdir()
    shutil.move(tmp_path / "model", elsewhere / "model")
    monkeypatch.chdir(elsewhere)

    def probabilities(*arguments: object) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
        run("predict", "model", *arguments, "--out", "p.csv", "--probabilities", "--device", "cpu")
        return read(elsewhere / "p.csv", shard.classes)

    # Two picture files, or one of them: what evaluation has for that row.
    number, row = next((k, name) for k, name in enumerate(test_ids) if len(files_of(folder, name)) == 2)
    files = files_of(folder, row)
    for given in subsets:
        ((what, found),) = probabilities(
            *(word for camera in given for word in (f"--{camera}", files[camera]))
        ).values()
        assert what == "+".join(given)
        np.testing.assert_allclose(found, subsets[given][number], atol=CLOSE)

    # The whole folder in one table: each row as evaluation has it, and as it is alone.
    table = probabilities(folder)
    assert len(table) == 36
    assert np.ptp([found for _, found in table.values()], axis=0).max() > 0.01  # rows are told apart
    assert {what for what, _ in table.values()} == {"rgb+depth", "rgb", "depth"}
    for number, name in enumerate(test_ids):
        expected = subsets[tuple(files_of(folder, name))][number]
        np.testing.assert_allclose(table[name][1], expected, atol=CLOSE)
    for pattern in ("rgb+depth", "rgb", "depth"):
        name = next(name for name, (what, _) in table.items() if what == pattern)
        alone = probabilities(
            *(word for camera, path in files_of(folder, name).items() for word in (f"--{camera}", path))
        )
        np.testing.assert_allclose(next(iter(alone.values()))[1], table[name][1], atol=CLOSE)

    # A metadata.csv that names the same files.
    lines = [",".join([name, *(str(files_of(folder, name).get(camera, "")) for camera in CAMERAS)]) for name in table]
    (folder / "some.csv").write_text("\n".join(["id,rgb_file_name,depth_file_name", *lines]))
    for name, (what, found) in probabilities(folder / "some.csv").items():
        assert what == table[name][0]
        np.testing.assert_allclose(found, table[name][1], atol=CLOSE)

    check_python(elsewhere / "model", folder, table)
    check_what_cannot_be_used(mmssl, folder, elsewhere)


def check_python(model: Path, folder: Path, table: dict[str, tuple[str, np.ndarray[Any, Any]]]) -> None:
    """`mmssl.load` with paths, PIL images and arrays, None where one is missing."""
    loaded = python.load(model, device="cpu")
    names = list(table)
    expected = np.stack([table[name][1] for name in names])
    paths = {camera: [files_of(folder, name).get(camera) for name in names] for camera in CAMERAS}
    images = {c: [None if path is None else Image.open(path) for path in found] for c, found in paths.items()}
    arrays = {c: [None if image is None else np.array(image) for image in found] for c, found in images.items()}
    texts = {c: [None if path is None else str(path) for path in found] for c, found in paths.items()}
    for inputs in (paths, texts, images, arrays):
        np.testing.assert_allclose(loaded.predict_proba(inputs), expected, atol=CLOSE)
    alone = loaded.predict_proba({"rgb": paths["rgb"][:1], "depth": None})
    np.testing.assert_allclose(alone, loaded.predict_proba({"rgb": arrays["rgb"][:1]}), atol=CLOSE)


def check_what_cannot_be_used(mmssl: Command, folder: Path, place: Path) -> None:
    """A picture that cannot be read leaves its row out, and one of the wrong kind ends the command."""
    new = place / "new"
    for number, path in enumerate(sorted(folder.glob("*/*/rgb/*.png"))[:3]):
        (new / "rgb").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, new / "rgb" / f"{number}.png")
    (new / "rgb" / "1.png").write_bytes(b"no picture")
    done = mmssl("predict", "model", new, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert [row["id"] for row in answer["predictions"]] == ["0", "2"]
    assert "1.png: not a readable picture" in answer["left_out"]["1"]
    assert "left out: 1: " in done.err
    assert "known_label" not in answer["predictions"][0]
    for number in (0, 2):
        (new / "rgb" / f"{number}.png").write_bytes(b"")
    refused(mmssl("predict", "model", new, "--out", "q.csv"), 1, "not one of its 3 rows can be predicted")
    depth = next(iter(sorted(folder.glob("*/*/depth/*.png"))))
    shutil.copy(depth, new / "rgb" / "0.png")
    refused(mmssl("predict", "model", new, "--out", "q.csv"), 1, "0.png: has one channel of 16 bits")
    refused(mmssl("predict", "model", "--rgb", depth, "--out", "q.csv"), 1, "looks like depth", "folders or columns")
    assert not (place / "q.csv").exists()
