"""The contract: what is written is what is read, and whatever is not a valid shard is refused in one sentence."""

import errno
import json
import multiprocessing
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError, StorageError
from pipeline.runtime.files import atomic_path
from pipeline.shards.schema import RESERVED
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.summary import describe
from pipeline.shards.writing import PartData, write_shard
from tests.support.paths import ROOT
from tests.support.small_shards import MakePart, MakeShard

DOCS = ROOT / "docs" / "shards.md"


def refusal(path: Path) -> str:
    """The sentence with which a file is refused; it always names the file, and is one line."""
    with pytest.raises(DataError) as caught:
        Shard.open(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def edit(path: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file: h5py.File, name: str, value: object, **how: object) -> None:
    del file[name]
    file.create_dataset(name, data=value, **how)


# --- what is written is what is read ---------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8).filter(
    lambda name: name not in RESERVED and not set(name) & set("/+,") and not name.startswith(".")
)
ids = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
values = {"bernoulli": (0.0, 1.0), "nonnegative": (0.0, 1e6), "gaussian": (-1e6, 1e6)}


@st.composite
def contents(draw: st.DrawFn) -> dict[str, object]:
    modalities = [
        Modality(name, draw(st.integers(1, 6)), draw(st.sampled_from(sorted(values))))
        for name in draw(st.lists(names, min_size=1, max_size=4, unique=True))
    ]
    classes = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    rows = {"train": draw(st.integers(1, 9)), "test": draw(st.integers(1, 9))}
    unique = draw(st.lists(ids, min_size=sum(rows.values()), max_size=sum(rows.values()), unique=True))

    def part(name: str) -> PartData:
        n = rows[name]
        labels = draw(hnp.arrays(np.int64, n, elements=st.integers(-1, len(classes) - 1)))
        features = {}
        for m in modalities:
            low, high = values[m.distribution]
            features[m.name] = draw(hnp.arrays(np.float32, (n, m.width), elements=st.floats(low, high, width=32)))
        own = unique[: rows["train"]] if name == "train" else unique[rows["train"] :]
        mask = draw(st.none() | hnp.arrays(np.bool_, n)) if name == "train" else None
        return PartData(features, labels, own, None if mask is None else mask & (labels >= 0))

    return {
        "dataset": draw(names),
        "classes": classes,
        "modalities": modalities,
        "train": part("train"),
        "test": part("test"),
        "split": draw(st.none() | st.integers(0, 1000)),
        "provenance": draw(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)),
    }


@given(contents())
def test_what_is_written_is_read(content: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "shard.h5", **content)  # type: ignore[arg-type]
        shard = Shard.open(Path(folder) / "shard.h5")
        shard.verify()
        assert shard.dataset == content["dataset"]
        assert shard.split == content["split"]
        assert list(shard.classes) == content["classes"]
        assert list(shard.modalities) == content["modalities"]
        assert shard.provenance == content["provenance"]
        for part, given_part in ((shard.train, content["train"]), (shard.test, content["test"])):
            assert isinstance(given_part, PartData)
            np.testing.assert_array_equal(part.labels, given_part.labels)
            assert part.labels.dtype == np.int64
            assert part.ids.tolist() == list(given_part.ids)
            for name, expected in given_part.features.items():
                got = part.features(name)
                np.testing.assert_array_equal(got, expected)
                assert got.dtype == np.float32
            if given_part.labelled is None:
                assert part.labelled is None
            else:
                np.testing.assert_array_equal(part.labelled, given_part.labelled)


@given(st.lists(st.integers(0, 20), max_size=5), st.slices(20))
def test_blocks_equal_the_whole(cuts: list[int], rows: slice) -> None:
    x = np.random.default_rng(0).random((20, 3), dtype=np.float32)
    labels, modality = np.arange(20) % 2, [Modality("x", 3, "bernoulli")]
    with tempfile.TemporaryDirectory() as folder:

        def write(name: str, features: object) -> Shard:
            train = PartData({"x": features}, labels, [f"a{i}" for i in range(20)])  # type: ignore[dict-item]
            test = PartData({"x": x[:2]}, [0, 1], ["b0", "b1"])
            path = Path(folder) / name
            return write_shard(path, dataset="d", classes="ab", modalities=modality, train=train, test=test)

        whole = write("whole.h5", x)
        pieces = write("pieces.h5", iter(np.split(x, sorted(cuts))))
        assert whole.path.read_bytes() == pieces.path.read_bytes()
        if (rows.step or 1) > 0:
            np.testing.assert_array_equal(pieces.train.features("x", rows), x[rows])
        else:
            with pytest.raises(ValueError, match="forwards"):
                pieces.train.features("x", rows)


def test_a_large_modality_is_chunked_by_rows_and_read_in_blocks(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3000, 1000), dtype=np.float32)
    train, test = (PartData({"x": x}, np.zeros(3000, int), [f"{p}{i}" for i in range(3000)]) for p in "ab")
    modalities = [Modality("x", 1000, "gaussian")]
    path = tmp_path / "s.h5"
    shard = write_shard(path, dataset="d", classes=["a", "b"], modalities=modalities, train=train, test=test)
    with h5py.File(path) as file:
        assert file["train/x"].chunks == (2**20 // 4000, 1000)
        assert all(file[f"train/{name}"].fletcher32 for name in ("x", "label", "id"))
    blocks = list(shard.test.blocks("x"))
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), x)


def test_a_shard_can_be_sent_to_another_process(make_shard: MakeShard) -> None:
    shard = make_shard()
    again = pickle.loads(pickle.dumps(shard))
    np.testing.assert_array_equal(again.train.features("w"), shard.train.features("w"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(shard.test.features, ("x",)), shard.test.features("x"))


def test_no_file_stays_open(make_shard: MakeShard) -> None:
    shard = make_shard()
    shard.train.features("x")
    edit(shard.path, lambda file: file.attrs.__setitem__("provenance", "{}"))  # refused while a reader has it open


# --- a stranger's shard ----------------------------------------------------------------------------------------------


def test_the_example_of_the_page_is_a_valid_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert block
    monkeypatch.chdir(tmp_path)
    exec(compile(block[1], str(DOCS), "exec"), {})
    shard = Shard.open("fruit.h5")
    shard.verify()
    assert not shard.digest_recorded
    assert shard.classes == ("apple", "banana")
    assert shard.modalities == (Modality("colour", 32, "nonnegative"), Modality("smell", 8, "gaussian"))
    assert (shard.train.rows, shard.test.rows) == (500, 100)
    assert shard.train.ids[499] == "train-499"


def test_a_missing_digest_is_computed_and_said(make_shard: MakeShard, caplog: pytest.LogCaptureFixture) -> None:
    recorded = make_shard()
    recorded.verify()
    assert not caplog.records
    edit(recorded.path, lambda file: file.attrs.__delitem__("digest"))
    shard = Shard.open(recorded.path)
    assert (shard.digest, shard.digest_recorded) == (recorded.digest, False)
    shard.verify()
    assert "no digest is recorded" in caplog.text


def test_the_digest_is_of_the_content_as_the_page_defines_it(make_shard: MakeShard) -> None:
    import hashlib

    shard = make_shard()
    modalities = [["x", 4, "bernoulli"], ["w", 3, "nonnegative"]]
    content = json.dumps([1, "small", 3, ["cup", "bowl", "Löffel"], modalities]).encode()
    with h5py.File(shard.path) as file:
        for part in ("train", "test"):
            group = file[part]
            content += b"".join(group[m][:].astype("<f4").tobytes() for m in ("x", "w"))
            content += group["label"][:].astype("<i8").tobytes()
            mask = group["labelled"][:].astype(int).tolist() if part == "train" else None
            content += json.dumps([mask, group["id"].asstr()[:].tolist()]).encode()
    assert shard.digest == hashlib.sha256(content).hexdigest()
    assert make_shard(provenance={"other": 1}).digest == shard.digest
    assert make_shard(split=4).digest != shard.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda f: replace(f, "train/x", f["train/x"][:], compression="gzip", chunks=(3, 4)),
        lambda f: replace(f, "train/label", f["train/label"][:].astype("i1")),
        lambda f: replace(f, "train/labelled", f["train/labelled"][:].astype("u1")),
        lambda f: replace(f, "test/id", f["test/id"].asstr()[:].astype(object)),
        lambda f: replace(f, "test/w", f["test/w"][:].astype(">f4")),
        lambda f: f.__delitem__("train/labelled"),
        lambda f: f.attrs.__delitem__("split"),
        lambda f: f.attrs.__delitem__("provenance"),
    ],
)
def test_other_ways_to_store_it_are_read(make_shard: MakeShard, change: Callable[[h5py.File], object]) -> None:
    shard = make_shard()
    edit(shard.path, lambda file: file.attrs.__delitem__("digest"))
    edit(shard.path, change)
    again = Shard.open(shard.path)
    np.testing.assert_array_equal(again.train.features("x"), shard.train.features("x"))
    np.testing.assert_array_equal(again.test.features("w"), shard.test.features("w"))
    np.testing.assert_array_equal(again.train.labels, shard.train.labels)
    assert again.test.ids.tolist() == shard.test.ids.tolist()


# --- what is refused on opening --------------------------------------------------------------------------------------


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
    "schema of another version": (lambda f: f.attrs.__setitem__("schema", 2), "schema 2"),
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
    "float64 features": (lambda f: replace(f, "train/x", np.zeros((20, 4))), "float64, not float32"),
    "text features": (lambda f: replace(f, "train/x", [["a"] * 4] * 20), "not float32"),
    "features of one dimension": (lambda f: replace(f, "train/x", np.zeros(20, "f4")), "no columns"),
    "features of no width": (lambda f: replace(f, "train/x", np.zeros((20, 0), "f4")), "no columns"),
    "features of three dimensions": (lambda f: replace(f, "train/x", np.zeros((20, 2, 2), "f4")), "no columns"),
    "another width in test": (lambda f: replace(f, "test/x", np.zeros((10, 5), "f4")), "(10, 5), not (10, 4)"),
    "fewer rows": (lambda f: replace(f, "train/w", np.zeros((19, 3), "f4")), "(19, 3), not (20, 3)"),
    "a label too many": (lambda f: replace(f, "test/label", np.zeros(11, int)), "not (11,)"),
    "labels as floats": (lambda f: replace(f, "train/label", np.zeros(20)), "whole numbers"),
    "labels of two dimensions": (lambda f: replace(f, "train/label", np.zeros((20, 1), int)), "(20, 1)"),
    "a scalar label": (lambda f: replace(f, "train/label", 1), "train/label"),
    "numbers as ids": (lambda f: replace(f, "test/id", np.arange(10)), "not text"),
    "an empty id": (lambda f: replace(f, "test/id", ["", *"abcdefghi"]), "id is empty"),
    "ids that are no UTF-8": (lambda f: replace(f, "test/id", np.array([b"\xff%d" % i for i in range(10)])), "test/id"),
    "mask of twos": (lambda f: replace(f, "train/labelled", np.full(20, 2)), "true or false"),
    "mask of another length": (lambda f: replace(f, "train/labelled", np.zeros(3, bool)), "(3,), not (20,)"),
    "mask on unknown": (lambda f: f["train/labelled"].__setitem__(3, True), "marks row 3, whose label is unknown"),
    "label too large": (lambda f: f["train/label"].__setitem__(7, 3), "train/label is 3 in row 7, outside -1..2"),
    "label too small": (lambda f: f["test/label"].__setitem__(0, -2), "test/label is -2 in row 0"),
    "an id twice": (lambda f: f["test/id"].__setitem__(1, "test-0"), "'test-0' occurs more than once"),
    "an id in both parts": (
        lambda f: replace(f, "test/id", ["train-4", *"abcdefghi"]),
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
            replace(file, f"{part}/{name}", file[f"{part}/{name}"][:0])

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


# --- what is refused on writing --------------------------------------------------------------------------------------

WRONG = {
    "reserved name": ({"modalities": [Modality("label", 4, "gaussian")]}, "reserved"),
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


ROWS = {
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

    def blocks() -> object:
        yield train.features["x"][:10]
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
        def __init__(self, raw: object) -> None:
            self.raw = raw

        def write(self, data: memoryview) -> int:
            nonlocal left
            taken = min(left, len(data))
            if not taken:
                raise OSError(errno.ENOSPC, "No space left on device")
            left -= taken
            return self.raw.write(data[:taken])  # type: ignore[attr-defined, no-any-return]

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


# --- for people ------------------------------------------------------------------------------------------------------


def test_description(tmp_path: Path) -> None:
    train = PartData({"x": np.array([[0, 1], [2, 3], [4, 5]])}, [0, 1, -1], ["a", "b", "c"], [True, False, False])
    test = PartData({"x": np.array([[7, 10]])}, [1], ["d"])
    modalities = [Modality("x", 2, "nonnegative")]
    path = tmp_path / "s.h5"
    shard = write_shard(path, dataset="d", classes=["p", "q"], modalities=modalities, train=train, test=test)
    told = describe(shard)
    assert (told.train_rows, told.test_rows, told.labelled) == (3, 1, 1)
    assert [(c.name, c.train, c.test, c.labelled) for c in told.classes] == [("p", 1, 0, 1), ("q", 1, 1, 0)]
    assert (told.unknown.train, told.unknown.test) == (1, 0)
    (x,) = told.modalities
    assert (x.name, x.width, x.min, x.mean, x.max) == ("x", 2, 0.0, 4.0, 10.0)
    assert told.digest == shard.digest
