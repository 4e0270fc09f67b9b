"""What a newer version wrote is said to be that, and is neither taken for damaged nor made again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.features.feature_shards import is_there
from pipeline.images.building import build_store
from pipeline.images.store import ImageSettings, ImageStore, ObjectImages, StoreIndex, object_path, write_object
from pipeline.runtime.errors import NewerError
from pipeline.shards.shard import Shard
from tests.support.small_shards import small_shard
from trainer.reporting.comparison import ExperimentResult, read_result, write_result
from trainer.reporting.rival_comparison import RivalComparison, read_comparison, write_comparison

SETTINGS = ImageSettings(size=32)


def rewritten(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def later(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 9


def shard(folder: Path) -> Callable[[], Any]:
    later(small_shard(folder / "mine.h5").path)
    return lambda: Shard.open(folder / "mine.h5")


def features(folder: Path) -> Callable[[], Any]:
    later(small_shard(folder / "mine.h5").path)
    return lambda: is_there(folder / "mine.h5", {})  # would be made again if it were damaged


def image_object(folder: Path) -> Callable[[], Any]:
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    write_object(object_path(folder, "cup_1"), ObjectImages("cup_1", ("a",), pixels, pixels, {}, {}), SETTINGS, "")
    later(object_path(folder, "cup_1"))
    return lambda: build_store(folder, {"cup_1": []}, SETTINGS, lambda _: pytest.fail("built"), workers=1)


def store_index(**changes: object) -> Callable[[Path], Callable[[], Any]]:
    def write(folder: Path) -> Callable[[], Any]:
        index = StoreIndex(
            dataset="mine", source={}, settings=SETTINGS, versions=(), trials=(), objects={}, skipped={}, flawed={}
        )
        ImageStore.finish(folder, index)
        rewritten(folder / "index.json", **changes)
        return lambda: ImageStore.open(folder)

    return write


def result(folder: Path) -> Callable[[], Any]:
    write_result(folder / "table1.json", ExperimentResult(name="table1", title="Table 1"))
    rewritten(folder / "table1.json", from_the_future=1)
    return lambda: read_result(folder / "table1.json")


def comparison(folder: Path) -> Callable[[], Any]:
    write_comparison(
        folder / "comparison.json", RivalComparison(data="mine", given=(), replicas=(), recommended=(), levels=())
    )
    rewritten(folder / "comparison.json", from_the_future=1)
    return lambda: read_comparison(folder / "comparison.json")


KINDS = (
    shard, features, image_object, store_index(schema_version=2), store_index(from_the_future=1), result, comparison
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_file_is_left_alone(kind: Callable[[Path], Callable[[], Any]], tmp_path: Path) -> None:
    use = kind(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(NewerError, match=r"was written by a newer version of mmssl \(.*; this version .*\)$") as caught:
        use()
    assert caught.value.hint == "update mmssl"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
