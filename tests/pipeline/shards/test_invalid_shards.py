"""Whatever is not a valid shard, or was damaged, is refused in one sentence."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Shard
from tests.support.shard_files import edit, refusal, replace_dataset
from tests.support.small_shards import MakeShard


def test_a_file_that_is_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    assert "no such file" in refusal(path)
    path.write_bytes(b"")
    assert "empty file" in refusal(path)
    path.write_bytes(b"PK\3\4" + bytes(100))
    assert "not an HDF5 file" in refusal(path)
    with h5py.File(path, "w") as file:
        file["x"] = [1.0]
    assert "not a shard" in refusal(path)
    assert "is a directory" in refusal(tmp_path)


BAD = {
    "schema of another version": (lambda f: f.attrs.__setitem__("schema", 3), "schema 3"),
    "schema is text": (lambda f: f.attrs.__setitem__("schema", "1"), "schema"),
    "no dataset": (lambda f: f.attrs.__delitem__("dataset"), "name of the data set"),
    "no classes": (lambda f: f.attrs.__delitem__("classes"), "classes"),
    "classes no JSON": (lambda f: f.attrs.__setitem__("classes", "cup, bowl"), "JSON list"),
    "one class": (lambda f: f.attrs.__setitem__("classes", '["cup"]'), "fewer than two classes"),
    "a class twice": (lambda f: f.attrs.__setitem__("classes", '["a", "a", "b"]'), "class name 'a'"),
    "a class is a number": (lambda f: f.attrs.__setitem__("classes", '["a", "b", 3]'), "class name 3"),
    "fewer classes than labels": (lambda f: f.attrs.__setitem__("classes", '["a", "b"]'), "outside -1..1"),
    "no modality": (lambda f: f.attrs.__setitem__("modalities", "{}"), "no modality"),
    "unknown distribution": (lambda f: f.attrs.__setitem__("modalities", '{"x": "cauchy"}'), "'cauchy'"),
    "distribution is a list": (lambda f: f.attrs.__setitem__("modalities", '{"x": []}'), "[]"),
    "modality not there": (lambda f: f.attrs.__setitem__("modalities", '{"v": "gaussian"}'), "train/v is missing"),
    "modality is a path": (lambda f: f.attrs.__setitem__("modalities", '{"../x": "gaussian"}'), "missing"),
    "modality is a group": (lambda f: (f.__delitem__("train/x"), f.create_group("train/x")), "train/x is missing"),
    "split is text": (lambda f: f.attrs.__setitem__("split", "three"), "split"),
    "split is negative": (lambda f: f.attrs.__setitem__("split", -1), "negative"),
    "provenance no JSON": (lambda f: f.attrs.__setitem__("provenance", "yes"), "provenance"),
    "no test group": (lambda f: f.__delitem__("test"), "group test is missing"),
    "test is a data set": (lambda f: (f.__delitem__("test"), f.__setitem__("test", [1])), "group test is missing"),
    "no labels": (lambda f: f.__delitem__("train/label"), "train/label is missing"),
    "no ids": (lambda f: f.__delitem__("test/id"), "test/id is missing"),
    "float64 features": (lambda f: replace_dataset(f, "train/x", np.zeros((20, 4))), "float64, not float32"),
    "text features": (lambda f: replace_dataset(f, "train/x", [["a"] * 4] * 20), "not float32"),
    "features of one dimension": (lambda f: replace_dataset(f, "train/x", np.zeros(20, "f4")), "no columns"),
    "features of no width": (lambda f: replace_dataset(f, "train/x", np.zeros((20, 0), "f4")), "no columns"),
    "features of three dimensions": (lambda f: replace_dataset(f, "train/x", np.zeros((20, 2, 2), "f4")), "no columns"),
    "another width in test": (lambda f: replace_dataset(f, "test/x", np.zeros((10, 5), "f4")), "(10, 5), not (10, 4)"),
    "fewer rows": (lambda f: replace_dataset(f, "train/w", np.zeros((19, 3), "f4")), "(19, 3), not (20, 3)"),
    "a label too many": (lambda f: replace_dataset(f, "test/label", np.zeros(11, int)), "not (11,)"),
    "labels as floats": (lambda f: replace_dataset(f, "train/label", np.zeros(20)), "whole numbers"),
    "labels of two dimensions": (lambda f: replace_dataset(f, "train/label", np.zeros((20, 1), int)), "(20, 1)"),
    "a scalar label": (lambda f: replace_dataset(f, "train/label", 1), "train/label"),
    "numbers as ids": (lambda f: replace_dataset(f, "test/id", np.arange(10)), "not text"),
    "an empty id": (lambda f: replace_dataset(f, "test/id", ["", *"abcdefghi"]), "id is empty"),
    "ids that are no UTF-8": (
        lambda f: replace_dataset(f, "test/id", np.array([b"\xff%d" % i for i in range(10)])),
        "test/id",
    ),
    "mask of twos": (lambda f: replace_dataset(f, "train/labelled", np.full(20, 2)), "true or false"),
    "mask of another length": (lambda f: replace_dataset(f, "train/labelled", np.zeros(3, bool)), "(3,), not (20,)"),
    "mask on unknown": (lambda f: f["train/labelled"].__setitem__(3, True), "marks row 3, whose label is unknown"),
    "label too large": (lambda f: f["train/label"].__setitem__(7, 3), "train/label is 3 in row 7, outside -1..2"),
    "label too small": (lambda f: f["test/label"].__setitem__(0, -2), "test/label is -2 in row 0"),
    "an id twice": (lambda f: f["test/id"].__setitem__(1, "test-0"), "'test-0' occurs more than once"),
    "an id in both parts": (
        lambda f: replace_dataset(f, "test/id", ["train-4", *"abcdefghi"]),
        "'train-4' occurs more than once",
    ),
    "NaN": (lambda f: f["train/w"].__setitem__((5, 1), np.nan), "train/w holds a value that is not finite in row 5"),
    "infinite": (lambda f: f["test/w"].__setitem__((9, 0), np.inf), "test/w holds a value that is not finite in row 9"),
    "above 1": (lambda f: f["test/x"].__setitem__((0, 0), 1.5), "test/x holds 1.5, outside the [0, 1]"),
    "below 0": (lambda f: f["train/w"].__setitem__((0, 0), -0.25), "train/w holds -0.25, below the 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_shard_is_refused_in_one_sentence(case: str, make_shard: MakeShard) -> None:
    path = make_shard().path
    change, words = BAD[case]
    edit(path, change)
    assert words in refusal(path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_part_is_refused(part: str, make_shard: MakeShard) -> None:
    path = make_shard().path

    def empty(file: h5py.File) -> None:
        for name in list(file[part]):
            replace_dataset(file, f"{part}/{name}", file[f"{part}/{name}"][:0])

    edit(path, empty)
    assert f"{part} has no rows" in refusal(path)


@pytest.mark.parametrize("layout", [{}, {"chunks": (100, 4)}])
def test_a_header_that_promises_more_than_the_file_holds(layout: dict[str, object], make_shard: MakeShard) -> None:
    path = make_shard().path

    def lie(file: h5py.File) -> None:
        del file["train/x"]
        file.create_dataset("train/x", (10**9, 4), "f4", **layout)

    edit(path, lie)
    assert "was not written to its end" in refusal(path)


def test_data_that_lie_in_another_file_are_refused(make_shard: MakeShard, tmp_path: Path) -> None:
    path, other = make_shard().path, make_shard(tmp_path / "other.h5").path
    edit(path, lambda f: (f.__delitem__("train/x"), f.__setitem__("train/x", h5py.ExternalLink(other, "train/x"))))
    assert "lies in another file" in refusal(path)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train/x", "train/w", "test/x", "train/label", "test/id", "train/labelled"])
def test_a_flipped_bit_in_the_data_is_found_and_placed(name: str, make_shard: MakeShard) -> None:
    shard = make_shard()
    with h5py.File(shard.path) as file:
        offset = file[name].id.get_chunk_info(0).byte_offset
    content = bytearray(shard.path.read_bytes())
    content[offset + 5] ^= 1
    shard.path.write_bytes(content)
    assert name in refusal(shard.path)
    with pytest.raises(DataError, match=f"{re.escape(str(shard.path))}: {name} "):
        shard.verify()


def test_any_flipped_bit_is_found(make_shard: MakeShard, tmp_path: Path) -> None:
    shard = make_shard()
    original = shard.path.read_bytes()
    path = tmp_path / "flipped.h5"
    rng = np.random.default_rng(0)
    for place in rng.choice(len(original), 300, replace=False):
        content = bytearray(original)
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            again = Shard.open(path)
            again.verify()
        except DataError:
            continue
        # a byte that nothing uses
        assert (again.digest, again.provenance) == (shard.digest, shard.provenance)


def test_a_shard_cut_short_anywhere_is_refused(make_shard: MakeShard) -> None:
    path = make_shard().path
    content = path.read_bytes()
    for length in range(1, len(content), 97):
        path.write_bytes(content[:length])
        refusal(path)


def test_a_change_that_keeps_all_checksums_fails_verify(make_shard: MakeShard) -> None:
    shard = make_shard()
    edit(shard.path, lambda file: file["train/x"].__setitem__((0, 0), 0.5))
    with pytest.raises(DataError, match="does not match its digest"):
        shard.verify()
    with pytest.raises(DataError, match="does not match its digest"):
        Shard.open(shard.path).verify()


def test_a_shard_damaged_after_opening(make_shard: MakeShard) -> None:
    shard = make_shard()
    shard.path.write_bytes(shard.path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"shard\.h5"):
        shard.train.features("x")
    with pytest.raises(DataError, match="no modality 'v', only x, w"):
        shard.train.features("v")


@pytest.mark.parametrize("name", ["[s]", "a\nb", "$x$", "\u200fשלום", "日本語", "\x1b[2J", "a" * 5000])
def test_a_class_may_have_any_name(make_shard: MakeShard, name: str) -> None:
    shard = make_shard(classes=["cup", "bowl", name])
    assert Shard.open(shard.path).classes[2] == name


@pytest.mark.parametrize("name", ["", " ", "cup ", "b\n", "\0", "\udc80"])
def test_what_is_no_text_or_looks_like_another_is_no_class_name(make_shard: MakeShard, name: str) -> None:
    with pytest.raises((DataError, ValueError), match="class name"):
        make_shard(classes=["cup", "bowl", name])
