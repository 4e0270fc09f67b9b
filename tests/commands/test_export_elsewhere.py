"""`mmssl export --onnx --with-encoder --torch-export`: from pictures to answers without mmssl, by the commands."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import mmssl as python
from pipeline.features import vgg
from pipeline.runtime import onnx_files
from tests.support.commands import Command, refused
from tests.support.own_pictures import write_pictures
from tests.support.tiny_vgg import TinyVgg
from tests.support.without_mmssl import needs_onnx, run_onnx


@pytest.fixture
def run_folder(mmssl: Command, tmp_path: Path, small_kl: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a person's own pictures, encoded by a tiny network."""
    monkeypatch.setattr(vgg, "vgg16", TinyVgg)
    write_pictures(tmp_path / "pictures", rows=6)
    for arguments in (
        ("data", "import", tmp_path / "pictures", "--name", "mine", "--size", 32, "--workers", 1),
        ("extract", "--data", "mine", "--size", 32, "--weights", "random", "--device", "cpu"),
        ("train", "sshmvae-kl", "--data", "mine", "--epochs", 2, "--device", "cpu", "--config", small_kl),
    ):
        done = mmssl(*arguments)
        assert done.code == 0, done.err
    (folder,) = (tmp_path / "workspace" / "runs").iterdir()
    return folder


def test_pictures_are_answered_without_mmssl(run_folder: Path, mmssl: Command, tmp_path: Path) -> None:
    needs_onnx()
    done = mmssl("export", run_folder, "--out", "model", "--onnx", "--with-encoder", "--torch-export")
    assert done.code == 0, done.err
    assert "encoder-depth.onnx: probabilities differ" in done.out
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    files = {"model.pt2", "model.onnx", "encoder-rgb.onnx", "encoder-depth.onnx"}
    assert {one["file"] for one in card["exports"]} == files
    assert card["files"].keys() > {*files, "run_onnx.py"}
    assert "fill the holes of depth" in (tmp_path / "model" / "README.md").read_text()

    model = python.load(tmp_path / "model", device="cpu")
    place = tmp_path / "pictures" / "cup"
    frame = {camera: place / camera / "0002.png" for camera in ("rgb", "depth")}
    for cameras in (("rgb", "depth"), ("depth",), ("rgb",)):
        wanted = model.predictions({camera: [frame[camera]] for camera in cameras})
        ((label, probability),) = run_onnx(
            tmp_path / "model", [f"{camera}={frame[camera]}" for camera in cameras], tmp_path
        )
        assert label == model.classes_[wanted.label[0]]
        np.testing.assert_allclose(probability, wanted.probability[0], atol=1.1e-4)  # four digits are printed


def test_what_cannot_be_exported_is_refused_with_a_sentence(
    run_folder: Path, mmssl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_onnx()
    refused(mmssl("export", run_folder, "--with-encoder"), 2, "writes the bundle's encoders as ONNX")
    refused(mmssl("export", run_folder, "--onnx", "--with-encoder", "--no-encoders"), 2, "leave out --no-encoders")
    monkeypatch.setattr(
        onnx_files, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name), raising=True
    )
    refused(mmssl("export", run_folder, "--onnx"), 2, 'pip install "mmssl[onnx]"')
    assert not (tmp_path / "model").exists()


def test_vectors_have_no_encoder(mmssl: Command, small_kl: Path, tmp_path: Path) -> None:
    needs_onnx()
    done = mmssl("train", "sshmvae-kl", "--epochs", 1, "--device", "cpu", "--config", small_kl)
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "workspace" / "runs").iterdir()
    refused(mmssl("export", folder, "--onnx", "--with-encoder"), 2, "keeps no encoder of")
