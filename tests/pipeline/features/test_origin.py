"""The image store that a shard was made of is found where it lies, and no other is taken for it."""

import json
import logging
from pathlib import Path

import h5py
import pytest

from pipeline.features.origin import image_store_of
from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Shard
from tests.support.extraction import extract


@pytest.fixture
def shard(root: Path) -> Shard:
    return Shard.open(extract(root)[0])


def test_it_lies_in_the_shards_workspace(shard: Shard, root: Path) -> None:
    store = image_store_of(shard)
    assert store is not None
    assert store.folder.parent == root / "images"


def test_it_is_found_in_another_workspace_and_behind_a_link(shard: Shard, root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "shards" / "moved.h5"
    moved.parent.mkdir(parents=True)
    moved.write_bytes(shard.path.read_bytes())
    assert image_store_of(Shard.open(moved)) is None
    found = image_store_of(Shard.open(moved), root)
    assert found is not None
    assert found.folder.parent == root / "images"
    link = moved.with_name("link.h5")
    link.symlink_to(shard.path)
    assert image_store_of(Shard.open(link)) is not None


def test_its_folder_may_have_the_data_sets_name_alone(shard: Shard, root: Path) -> None:
    store = image_store_of(shard)
    assert store is not None
    assert store.folder.name != "rgbd", "these pictures are smaller than the paper's"
    store.folder.rename(root / "images" / "rgbd")
    assert image_store_of(shard) is not None


def test_a_store_of_other_pictures_is_not_taken(shard: Shard, caplog: pytest.LogCaptureFixture) -> None:
    with h5py.File(shard.path, "r+") as file:
        provenance = json.loads(file.attrs["provenance"])
        provenance["recipe"]["images"] = "0" * 64
        file.attrs["provenance"] = json.dumps(provenance)
    with caplog.at_level(logging.WARNING):
        assert image_store_of(Shard.open(shard.path)) is None
    assert "is not the image store that" in caplog.text


def test_a_damaged_store_is_said_to_be(shard: Shard) -> None:
    store = image_store_of(shard)
    assert store is not None
    next(path for path in store.folder.iterdir() if path.suffix == ".json").write_text("{")
    with pytest.raises(DataError):
        image_store_of(shard)


@pytest.mark.parametrize("made", [None, "text", {}, {"dataset": 3}, {"dataset": "rgbd", "settings": {"size": "wide"}}])
def test_a_shard_that_was_not_made_of_pictures_has_none(shard: Shard, made: object) -> None:
    with h5py.File(shard.path, "r+") as file:
        provenance = json.loads(file.attrs["provenance"])
        provenance["images"] = made
        file.attrs["provenance"] = json.dumps(provenance)
    assert image_store_of(Shard.open(shard.path)) is None
