"""What cannot be a shard is not written, and a disk that fails leaves nothing half-written."""

import errno
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError, StorageError
from pipeline.runtime.files import atomic_path
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from tests.support.small_shards import MakePart, MakeShard

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "name with a plus": ({"modalities": [Modality("x+w", 4, "gaussian")]}, "cannot be named"),
    "name with a comma": ({"modalities": [Modality("x,w", 4, "gaussian")]}, "cannot be named"),
    "name with a slash": ({"modalities": [Modality("x/w", 4, "gaussian")]}, "cannot be named"),
    "name with a dot": ({"modalities": [Modality(".", 4, "gaussian")]}, "cannot be named"),
    "empty name": ({"modalities": [Modality("", 4, "gaussian")]}, "cannot be named"),
    "name twice": ({"modalities": [Modality("x", 4, "bernoulli")] * 2}, "used twice"),
    "features missing": ({"modalities": [Modality("x", 4, "bernoulli"), Modality("v", 3, "gaussian")]}, "not of the"),
    "wrong width": ({"modalities": [Modality("x", 5, "bernoulli"), Modality("w", 3, "gaussian")]}, "does not fit"),
    "empty data set name": ({"dataset": ""}, "name of the data set"),
    "one class": ({"classes": ["cup"]}, "fewer than two"),
    "negative split": ({"split": -1}, "negative"),
    "too few classes": ({"classes": ["cup", "bowl"]}, "outside -1..1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_content_is_not_written(case: str, make_shard: MakeShard, tmp_path: Path) -> None:
    changes, words = WRONG[case]
    with pytest.raises(DataError, match=re.escape(words)):
        make_shard(**changes)
    assert list(tmp_path.iterdir()) == []


ROWS: dict[str, tuple[Callable[[Any], object], str]] = {
    "NaN": (lambda p: p.features["w"].__setitem__((5, 1), np.nan), "train/w holds a value that is not finite in row 5"),
    "negative": (lambda p: p.features["w"].__setitem__((5, 1), -1), "below the 0"),
    "too large for float32": (lambda p: p.features.update(w=np.full((20, 3), 1e300)), "not finite"),
    "fewer rows": (lambda p: p.features.update(w=p.features["w"][:19]), "has 19 rows, but there are 20 labels"),
    "more rows": (lambda p: p.features.update(w=np.zeros((21, 3))), "does not fit"),
    "one dimension": (lambda p: p.features.update(w=np.zeros(20)), "does not fit"),
    "no rows": (lambda p: p.features.update(w=iter([])), "has 0 rows"),
    "labels as floats": (lambda p: setattr(p, "labels", np.zeros(20)), "whole numbers"),
    "fewer ids": (lambda p: setattr(p, "ids", p.ids[:19]), "20 labels and 19 ids"),
    "id with NUL": (lambda p: p.ids.__setitem__(0, "a\0"), "without NUL"),
    "id not encodable": (lambda p: p.ids.__setitem__(0, "\ud800"), "without NUL"),
    "id a number": (lambda p: p.ids.__setitem__(0, 7), "not valid text"),
    "id empty": (lambda p: p.ids.__setitem__(0, ""), "id is empty"),
    "id twice": (lambda p: p.ids.__setitem__(0, "train-1"), "more than once"),
    "mask of another length": (lambda p: setattr(p, "labelled", np.zeros(3, bool)), "shape (3,)"),
    "mask on unknown": (lambda p: p.labelled.__setitem__(3, True), "marks row 3"),
}


@pytest.mark.parametrize("case", ROWS)
def test_bad_rows_are_not_written(case: str, make_shard: MakeShard, make_part: MakePart, tmp_path: Path) -> None:
    change, words = ROWS[case]
    train = make_part("train", 20, labelled=True)
    change(train)
    with pytest.raises(DataError, match=re.escape(words)):
        make_shard(train=train)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_shard(make_shard: MakeShard, make_part: MakePart) -> None:
    shard = make_shard()
    train = make_part("train", 20)

    def blocks() -> Iterator[NDArray[Any]]:
        yield np.asarray(train.features["x"])[:10]
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        make_shard(train=PartData({**train.features, "x": blocks()}, train.labels, train.ids))
    assert [path.name for path in shard.path.parent.iterdir()] == ["shard.h5"]
    shard.verify()


def test_a_missing_source_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "source").read_bytes()
    assert list(tmp_path.iterdir()) == []


# --- the disk --------------------------------------------------------------------------------------------------------


def wide(rows: int) -> dict[str, object]:
    x = np.random.default_rng(0).random((rows, 1000), dtype=np.float32)
    train, test = (PartData({"x": x}, np.zeros(rows, int), [f"{p}{i}" for i in range(rows)]) for p in "ab")
    modalities = [Modality("x", 1000, "bernoulli")]
    return {"dataset": "d", "classes": ["a", "b"], "modalities": modalities, "train": train, "test": test}


@pytest.mark.parametrize("rows", [131, 132, 1000])
def test_a_full_disk_is_an_error_and_leaves_nothing(rows: int, small_disk: Path) -> None:
    with pytest.raises(StorageError, match="the disk is full"):
        write_shard(small_disk / "s.h5", **wide(rows))  # type: ignore[arg-type]
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_leaves_the_old_shard(small_disk: Path) -> None:
    shard = write_shard(small_disk / "s.h5", **wide(50))  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="the disk is full"):
        write_shard(shard.path, **wide(100))  # type: ignore[arg-type]
    assert list(small_disk.iterdir()) == [shard.path]
    shard.verify()


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_disk_that_fills_at_any_byte(
    share: float, make_shard: MakeShard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs no file system of its own: a share of the bytes is taken, and the last write only in part."""
    path = make_shard().path
    left = int(share * path.stat().st_size)
    path.unlink()

    class Disk:
        def __init__(self, raw: Any) -> None:
            self.raw = raw

        def write(self, data: memoryview) -> int:
            nonlocal left
            taken = min(left, len(data))
            if not taken:
                raise OSError(errno.ENOSPC, "No space left on device")
            left -= taken
            return self.raw.write(data[:taken])

        def __getattr__(self, name: str) -> object:
            return getattr(self.raw, name)

    plain = hdf5._Sink
    monkeypatch.setattr(hdf5, "_Sink", lambda raw: plain(Disk(raw)))  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="the disk is full"):
        make_shard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(make_shard: MakeShard, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        make_shard(tmp_path / "file" / "s.h5")


def of(names: Sequence[str], rows: int, part: str, **more: Any) -> PartData:
    values = {name: np.full((rows, 2), k, np.float32) for k, name in enumerate(names)}
    return PartData(values, [row % 2 for row in range(rows)], [f"{part} {row}" for row in range(rows)], **more)


@pytest.mark.parametrize(
    ("names", "more", "schema", "stored"),
    [
        (("x", "group", "present"), {}, 1, {"x", "group", "present", "label", "id"}),  # as ever: the digest stays
        (("label", "x"), {}, 2, {".label", "x", "label", "id"}),
        (("group", "x"), {"groups": list("abcd")}, 2, {".group", "x", "group", "label", "id"}),
        (
            ("present", "labelled"),
            {"present": {"present": [True, False, True, True]}, "labelled": [True] * 4},
            2,
            {".present", ".labelled", "present", "labelled", "label", "id"},
        ),
    ],
)
def test_no_name_of_a_modality_is_taken(
    names: Sequence[str], more: dict[str, Any], schema: int, stored: set[str], tmp_path: Path
) -> None:
    train = of(names, 4, "train", **more)
    if "present" in more:
        train.features["present"][1] = 0
    modalities = [Modality(name, 2, "gaussian") for name in names]
    shard = write_shard(
        tmp_path / "a.h5",
        dataset="a",
        classes=["a", "b"],
        modalities=modalities,
        train=train,
        test=of(names, 2, "test"),
    )
    shard.verify()
    for k, name in enumerate(names):
        np.testing.assert_array_equal(shard.train.features(name), train.features[name])
        assert (next(shard.test.pieces([name], [slice(0, 2)]))[name] == k).all()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["schema"] == schema
        assert set(file["train"]) == stored


def test_schema_1_has_no_place_for_such_a_name(make_shard: MakeShard) -> None:
    shard = make_shard()
    with h5py.File(shard.path, "r+") as file:
        file.attrs["modalities"] = json.dumps({"label": "bernoulli", "w": "gaussian"})
    with pytest.raises(DataError, match="label"):
        Shard.open(shard.path)
