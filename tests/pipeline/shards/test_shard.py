"""The contract: what is written is what is read, also where a stranger wrote it."""

import json
import multiprocessing
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Scaling
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from tests.support.paths import ROOT
from tests.support.shard_files import edit, replace_dataset
from tests.support.small_shards import MakeShard

DOCS = ROOT / "docs" / "reference" / "shard.md"


# --- what is written is what is read ---------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8).filter(
    lambda name: not set(name) & set("/+,") and not name.startswith(".")
)
row_names = st.sampled_from(["label", "id", "labelled", "group", "present"])  # what else a part holds
ids = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
values = {"bernoulli": (0.0, 1.0), "nonnegative": (0.0, 1e6), "gaussian": (-1e6, 1e6)}


@st.composite
def contents(draw: st.DrawFn) -> dict[str, object]:
    modalities = [
        Modality(name, draw(st.integers(1, 6)), draw(st.sampled_from(sorted(values))))
        for name in draw(st.lists(names | row_names, min_size=1, max_size=4, unique=True))
    ]
    classes = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    rows = {"train": draw(st.integers(1, 9)), "test": draw(st.integers(0, 9))}
    unique = draw(st.lists(ids, min_size=sum(rows.values()), max_size=sum(rows.values()), unique=True))

    def part(name: str) -> PartData:
        n = rows[name]
        labels = draw(hnp.arrays(np.int64, n, elements=st.integers(-1, len(classes) - 1)))
        features, present = {}, {}
        for m in modalities:
            low, high = values[m.distribution]
            features[m.name] = draw(hnp.arrays(np.float32, (n, m.width), elements=st.floats(low, high, width=32)))
            if m is not modalities[0] and draw(st.booleans()):  # the first one is in every row, so none is empty
                present[m.name] = draw(hnp.arrays(np.bool_, n))
                features[m.name][~present[m.name]] = 0
        part_ids = unique[: rows["train"]] if name == "train" else unique[rows["train"] :]
        mask = draw(st.none() | hnp.arrays(np.bool_, n)) if name == "train" else None
        groups = draw(st.none() | st.lists(st.sampled_from(["", name, f"{name} 2"]), min_size=n, max_size=n))
        return PartData(
            features, labels, part_ids, None if mask is None else mask & (labels >= 0), present or None, groups
        )

    return {
        "dataset": draw(names),
        "classes": classes,
        "modalities": modalities,
        "train": part("train"),
        "test": part("test") if rows["test"] else None,
        "scaling": {
            m.name: Scaling(
                draw(hnp.arrays(np.float32, m.width, elements=st.floats(-9, 9, width=32))),
                draw(hnp.arrays(np.float32, m.width, elements=st.floats(1, 9, width=32))),
            )
            for m in draw(st.lists(st.sampled_from(modalities), unique=True))
        },
        "encoders": {m.name: {"backbone": "vgg16"} for m in draw(st.lists(st.sampled_from(modalities), unique=True))},
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
        assert shard.encoders == content["encoders"]
        scaling = cast(dict[str, Scaling], content["scaling"])
        assert shard.scaling.keys() == scaling.keys()
        for name, expected_scaling in scaling.items():
            np.testing.assert_array_equal(shard.scaling[name].mean, expected_scaling.mean)
            np.testing.assert_array_equal(shard.scaling[name].deviation, expected_scaling.deviation)
        for part, given_part in ((shard.train, content["train"]), (shard.test, content["test"])):
            if given_part is None:
                assert part.rows == 0
                assert list(part.blocks(shard.modalities[0].name)) == []
                assert part.features(shard.modalities[0].name).shape == (0, shard.modalities[0].width)
                assert list(part.pieces([], [])) == []
                continue
            assert isinstance(given_part, PartData)
            for m in shard.modalities:
                expected_rows = (given_part.present or {}).get(m.name, np.ones(part.rows, np.bool_))
                np.testing.assert_array_equal(part.has(m.name), expected_rows)
                assert (m.name in part.present) == (not np.all(expected_rows))
            assert part.groups is None if given_part.groups is None else part.groups.tolist() == given_part.groups
            np.testing.assert_array_equal(part.labels, given_part.labels)
            assert part.labels.dtype == np.int64
            assert part.ids.tolist() == list(given_part.ids)
            for name, expected in given_part.features.items():
                actual = part.features(name)
                np.testing.assert_array_equal(actual, expected)
                assert actual.dtype == np.float32
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


def test_only_what_needs_it_has_schema_2_and_another_digest(tmp_path: Path) -> None:
    x = np.array([[0.0], [1.0]], np.float32)

    def write(name: str, **extra: object) -> tuple[int, str]:
        part = {key: extra.pop(key) for key in ("present", "groups") if key in extra}
        train = PartData({"x": x, "w": x}, [0, 1], ["a", "b"], **part)  # type: ignore[arg-type]
        values = {"test": PartData({"x": x, "w": x}, [0, 1], ["c", "d"])} | extra
        modalities = [Modality("x", 1, "bernoulli"), Modality("w", 1, "bernoulli")]
        path = tmp_path / f"{name}.h5"
        shard = write_shard(path, dataset="d", classes="ab", modalities=modalities, train=train, **values)  # type: ignore[arg-type]
        with h5py.File(path) as file:
            return int(file.attrs["schema"]), shard.digest

    schema, digest = write("plain")
    assert schema == 1
    assert write("all present", present={"x": [True, True]}) == (1, digest)
    # How features were made is not what training sees.
    assert write("encoders", encoders={"x": {"backbone": "vgg16"}}) == (1, digest)
    assert Shard.open(tmp_path / "encoders.h5").encoders == {"x": {"backbone": "vgg16"}}
    others = {
        "lacking": write("lacking", present={"x": [False, True]}),
        "lacking another": write("lacking another", present={"w": [False, True]}),
        "groups": write("groups", groups=["p", ""]),
        "no test": write("no test", test=None),
        "scaling": write("scaling", scaling={"x": Scaling(np.zeros(1, np.float32), np.ones(1, np.float32))}),
    }
    assert {schema for schema, _ in others.values()} == {2}
    digests = [digest, *(other for _, other in others.values())]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"present": {"x": [False, True], "w": [False, True]}}, "row 0 of train has no modality at all"),
        ({"present": {"x": [True, False]}}, "train/x holds values in row 1, which lacks this modality"),
        ({"present": {"v": [True, False]}}, "train/present/v is of no modality"),
        ({"present": {"x": [True]}}, "train/present/x has the shape (1,), not (2,)"),
        ({"groups": ["p"]}, "train has groups that are not one text per row"),
        ({"groups": ["p", "q"]}, "the group 'q' has rows in both parts"),
    ],
)
def test_bad_rows_of_schema_2(train: dict[str, object], words: str, tmp_path: Path) -> None:
    x = np.array([[0.0], [1.0]], np.float32)
    with pytest.raises(DataError, match=re.escape(words)):
        write_shard(
            tmp_path / "s.h5",
            dataset="d",
            classes="ab",
            modalities=[Modality("x", 1, "bernoulli"), Modality("w", 1, "bernoulli")],
            train=PartData({"x": x, "w": x}, [0, 1], ["a", "b"], **train),  # type: ignore[arg-type]
            test=PartData({"x": x, "w": x}, [0, 1], ["c", "d"], groups=["q", ""]),
        )
    assert list(tmp_path.iterdir()) == []


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
        lambda f: replace_dataset(f, "train/x", f["train/x"][:], compression="gzip", chunks=(3, 4)),
        lambda f: replace_dataset(f, "train/label", f["train/label"][:].astype("i1")),
        lambda f: replace_dataset(f, "train/labelled", f["train/labelled"][:].astype("u1")),
        lambda f: replace_dataset(f, "test/id", f["test/id"].asstr()[:].astype(object)),
        lambda f: replace_dataset(f, "test/w", f["test/w"][:].astype(">f4")),
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
