"""What extraction cannot do is refused in one sentence, and nothing half-written is left."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from safetensors.torch import save_file

from pipeline.features import extract as extraction_stage
from pipeline.images.preprocess import preprocess
from pipeline.images.store import ImageSettings
from pipeline.runtime.errors import DataError, StorageError, UsageError
from pipeline.shards.shard import Shard
from tests.support.extraction import FRAMES, IMAGES, SETTINGS, extract
from tests.support.tiny_vgg import WIDTH, TinyVgg


@pytest.mark.parametrize(
    ("splits", "options", "error", "words"),
    [
        ((10,), {}, UsageError, r"there is no split 10: they are 0\.\.9"),
        ((0, -1), {}, UsageError, "there is no split -1"),
        ((0,), {"modalities": ["rgb", "lidar"]}, UsageError, "there is no modality 'lidar'"),
        ((0,), {"name": "../elsewhere"}, UsageError, r"--name \.\./elsewhere"),
        ((0,), {"name": "mine-validation"}, UsageError, "--name mine-validation: .* are for validation parts"),
        ((0,), {"device": "tpu"}, UsageError, "no device 'tpu'"),
        ((0,), {"weights": "nowhere.pth"}, DataError, r"there is no file of weights nowhere\.pth"),
    ],
)
def test_bad_options_are_one_sentence(
    root: Path, splits: Sequence[int], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        extract(root, splits, **options)
    assert {path.name for path in root.iterdir()} == {"images"}


def test_no_store_and_a_damaged_one(root: Path) -> None:
    with pytest.raises(DataError, match=r"the image store .* does not exist") as caught:
        extraction_stage.extract("rgbd", root, [0], ImageSettings(), SETTINGS, weights="random")
    assert "mmssl preprocess rgbd" in str(caught.value.hint)
    path = root / "images" / "rgbd-32" / "cup_4.h5"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cup_4\.h5: .*damaged"):
        extract(root)
    assert not list(root.glob("shards/*"))
    assert not list(root.glob("features/**/*.h5"))


def test_a_class_that_the_draw_leaves_out_is_given_a_label(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    extract(root, settings=SETTINGS.model_copy(update={"labelled": 0.05}))
    assert "the uniform draw of 1 labels had none of bell_pepper, cup, so each is given one" in caplog.text


def test_a_read_only_disk_is_one_sentence(small_disk: Path, prepared: Path) -> None:
    subprocess.run(["cp", "-r", prepared / "images", small_disk], check=True)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match=r"cannot write .*[Rr]ead-only"):
        extract(small_disk)
    assert {path.name for path in small_disk.iterdir()} == {"images"}


def test_wrong_weights_are_one_sentence(root: Path, tmp_path: Path) -> None:
    save_file({name: tensor for name, tensor in TinyVgg().state_dict().items() if name != "features.0.bias"},
              tmp_path / "less.safetensors")  # fmt: skip
    with pytest.raises(DataError, match=r"less\.safetensors: is not of a VGG16: features\.0\.bias is missing"):
        extract(root, weights=str(tmp_path / "less.safetensors"))
    wrong = TinyVgg().state_dict() | {"classifier.0.weight": torch.zeros(WIDTH, 7)}
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match=r"wrong\.safetensors: .*classifier\.0\.weight has the shape \(12, 7\)"):
        extract(root, weights=str(tmp_path / "wrong.safetensors"))
    place = root / "raw" / "vgg16" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"other bytes than the manifest's")
    with pytest.raises(DataError, match=r"vgg16-397923af\.pth"):
        extract(root, weights="imagenet")
    assert not list(root.glob("features/*/*.h5"))


def test_a_category_or_a_trial_that_is_missing_is_one_sentence(prepared: Path, tmp_path: Path) -> None:
    def store_of(change: Callable[[Path], None]) -> Path:
        root = tmp_path / change.__name__
        root.mkdir()
        subprocess.run(["cp", "-r", prepared / "raw", root / "raw"], check=True)
        change(root / "raw" / "rgbd-dataset")
        preprocess("rgbd", root, IMAGES, workers=1)
        return root

    def without_a_category(folder: Path) -> None:
        shutil.rmtree(folder / "cup")

    def without_an_object(folder: Path) -> None:
        shutil.rmtree(folder / "hat" / "hat_2")

    def without_trials(folder: Path) -> None:
        text = (folder / "testinstance_ids.txt").read_text()
        (folder / "testinstance_ids.txt").write_text(text[: text.index("****** trial 4")])

    shard = Shard.open(extract(store_of(without_a_category))[0])
    assert shard.classes == ("bell_pepper", "hat")
    with pytest.raises(DataError, match="trial 1 leaves out objects that the data lacks: hat_2") as caught:
        extract(store_of(without_an_object))
    assert "--trials objects" in str(caught.value.hint)
    assert "testinstance_ids.txt" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"there is no split 3: they are 0\.\.2"):
        extract(store_of(without_trials), (0, 3))


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path, prepared: Path) -> None:
    subprocess.run(["cp", "-r", prepared / "images", small_disk], check=True)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8000))
    with pytest.raises(StorageError, match="the disk is full"):
        extract(small_disk)
    assert not [path for path in small_disk.rglob("*") if path.name.startswith(".") or "shards" in path.parts]
    for path in small_disk.glob("features/*/*"):  # whole ones alone
        with h5py.File(path) as file:
            assert file["fc1"].shape == (FRAMES, WIDTH)
            assert "digest" in file.attrs
    (small_disk / "ballast").unlink()
    assert len(extract(small_disk)) == 1
