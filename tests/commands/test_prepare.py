"""`mmssl preprocess` and `mmssl extract`, as a user calls them."""

from pathlib import Path

import pytest

from pipeline.features import vgg
from pipeline.shards.shard import Shard
from tests.support.commands import Command, refused
from tests.support.imported_pictures import import_pictures
from tests.support.rgbd_frames import OBJECTS, write_frames
from tests.support.tiny_vgg import WIDTH, TinyVgg

EXTRACT = (
    "extract", "--size", 32, "--split", "0", "--weights", "random", "--labelled", 0.9, "--epochs", 0, "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def images(mmssl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shards' folder of a workspace with an image store, where the tiny network is in VGG16's place."""
    monkeypatch.setattr(vgg, "vgg16", TinyVgg)
    write_frames(tmp_path / "workspace")
    done = mmssl("preprocess", "rgbd", "--size", 32, "--workers", 1)
    assert done.code == 0, done.err
    assert done.out.strip().endswith(f"rgbd-32: {sum(OBJECTS.values())} frames")
    return tmp_path / "workspace" / "shards"


@pytest.mark.parametrize("given", ["both", "rgb,depth", "rgb,both", None])
def test_both_cameras_make_a_shard(given: str | None, mmssl: Command, images: Path) -> None:
    done = mmssl(*EXTRACT, *(() if given is None else ("--modality", given)))
    assert done.code == 0, done.err
    path = Path(done.out.strip())
    assert path == images / "rgbd-32-split-0.h5"
    shard = Shard.open(path)
    assert [(m.name, m.width) for m in shard.modalities] == [("x", WIDTH), ("w", WIDTH)]
    assert shard.preset == "rgbd"


def test_one_camera_at_a_time_makes_the_same_shard(mmssl: Command, images: Path) -> None:
    alone = mmssl(*EXTRACT, "--modality", "depth")
    assert (alone.code, alone.out) == (0, "")
    assert not list(images.glob("*.h5"))
    assert "rgb is missing" in alone.err
    done = mmssl(*EXTRACT, "--modality", "rgb")
    content = Path(done.out.strip()).read_bytes()
    assert mmssl(*EXTRACT, "--modality", "both", "--name", "other").code == 0
    assert Shard.open(images / "other-split-0.h5").train.rows == Shard.open(Path(done.out.strip())).train.rows
    assert mmssl(*EXTRACT, "--modality", "both").out == done.out
    assert Path(done.out.strip()).read_bytes() == content


def test_a_camera_that_there_is_not(mmssl: Command, images: Path) -> None:
    refused(mmssl(*EXTRACT, "--modality", "lidar"), 2, "there is no modality 'lidar'", "rgb, depth, or both")
    assert not images.exists()


def test_the_networks_are_kept_when_asked(mmssl: Command, images: Path) -> None:
    assert mmssl(*EXTRACT).code == 0
    digest = Shard.open(images / "rgbd-32-split-0.h5").digest
    done = mmssl(*EXTRACT, "--keep-encoder")
    assert done.code == 0, done.err
    shard = Shard.open(Path(done.out.strip()))
    assert shard.digest == digest
    assert {recipe["backbone"] for recipe in shard.encoders.values()} == {"vgg16"}
    assert len(list((images.parent / "features" / "rgbd-32").glob("*.encoder.safetensors"))) == 2


def test_another_network_has_shards_of_its_own(mmssl: Command, images: Path) -> None:
    done = mmssl(*EXTRACT, "--backbone", "resnet18")
    assert done.code == 0, done.err
    shard = Shard.open(images / "rgbd-32-resnet18-split-0.h5")
    assert [(m.name, m.width) for m in shard.modalities] == [("x", 512), ("w", 512)]
    assert shard.preset is None
    refused(mmssl(*EXTRACT, "--backbone", "resnet"), 2, "--backbone resnet: there is no such network", "resnet50")


def test_imported_pictures_have_one_shard_and_keep_their_networks(
    mmssl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vgg, "vgg16", TinyVgg)
    import_pictures(tmp_path / "workspace")
    own = ("extract", "--data", "mine", "--weights", "random", "--device", "cpu")
    done = mmssl(*own)
    assert done.code == 0, done.err
    shard = Shard.open(Path(done.out.strip()))
    assert (shard.path.name, set(shard.encoders)) == ("mine.h5", {"rgb", "depth"})
    refused(mmssl(*own, "--split", "0..9"), 2, "mine has no splits", "leave --split out")
    refused(mmssl(*own, "--labelled", 0.5), 2, "mine keeps the labels it was imported with")
    refused(mmssl("extract", "--data", "yours"), 1, "image store", "mmssl data import SOURCE --name yours")


def test_recordings_of_ones_own_in_the_layout_become_a_shard(
    mmssl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vgg, "vgg16", TinyVgg)
    folder = write_frames(tmp_path / "workspace")
    (folder / "testinstance_ids.txt").unlink()
    for path in folder.glob("*/*/*_1_1_*"):  # they count from zero
        path.rename(path.with_name(path.name.replace("_1_1_", "_1_0000_").replace(".png", ".PNG")))
    preprocess = ("preprocess", "rgbd", "--size", 32, "--workers", 1)
    usual = mmssl(*preprocess)
    assert usual.code == 0
    assert "frames are not taken, such as" in usual.err
    assert "trials do not fit these frames" in usual.err
    (folder / "cup" / "cup_4" / "cup_4_1_0000_depthcrop.PNG").write_bytes(b"")
    done = mmssl(*preprocess, "--frames", "all", "--trials", "objects", "--preview", "sheet.png")
    assert done.code == 0, done.err
    assert f"{sum(OBJECTS.values()) - 1} frames" in done.out
    assert "the file is empty" in done.err
    assert (tmp_path / "sheet.png").is_file()
    done = mmssl(*EXTRACT)
    assert done.code == 0, done.err
    assert Shard.open(Path(done.out.strip())).classes == ("bell_pepper", "cup", "hat")
    refused(mmssl(*EXTRACT, "--split", 2), 2, "there is no split 2: they are 0..1", "--split 0..1")
