"""Validation parts: which rows they hold, that the test part is left out, and that nothing is mistaken for them."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.digits import build
from pipeline.datasets.resolve import shard_paths
from pipeline.datasets.validation import build_validation, validation_path, validation_shard
from pipeline.datasets.washington import object_of
from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from tests.support.small_shards import MakeShard


def assert_divided(original: Shard, divided: Shard) -> None:
    """Both parts of `divided` are the training rows of `original`, each once and unchanged."""
    divided.verify()
    row_of = {name: row for row, name in enumerate(original.train.ids.tolist())}
    rows = {part.name: [row_of[name] for name in part.ids.tolist()] for part in (divided.train, divided.test)}
    assert sorted(rows["train"] + rows["test"]) == list(range(original.train.rows))
    assert all(chosen == sorted(chosen) for chosen in rows.values())
    for part in (divided.train, divided.test):
        np.testing.assert_array_equal(part.labels, original.train.labels[rows[part.name]])
        for modality in original.modalities:
            expected = original.train.features(modality.name)[rows[part.name]]
            np.testing.assert_array_equal(part.features(modality.name), expected)
    if original.train.labelled is not None:
        np.testing.assert_array_equal(divided.train.labelled, original.train.labelled[rows["train"]])
    assert (divided.classes, divided.modalities, divided.split, divided.preset) == (
        original.classes, original.modalities, original.split, original.preset
    )  # fmt: skip


def wide(path: Path, rows: int = 3000, labelled: int = 60, **changes: object) -> Shard:
    """Three classes of unequal size, some rows of unknown class, and features of several blocks (2 x 1,500 columns)."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, -1], rows, p=[0.6, 0.3, 0.05, 0.05])
    mask = np.zeros(rows, np.bool_)
    mask[rng.permutation(np.flatnonzero(labels >= 0))[:labelled]] = True
    features = {name: rng.random((rows, 1500), dtype=np.float32) for name in "xw"}
    content = {
        "dataset": "wide",
        "classes": ["a", "b", "c"],
        "modalities": [Modality("x", 1500, "bernoulli"), Modality("w", 1500, "gaussian")],
        "train": PartData(features, labels, [f"row-{row}" for row in range(rows)], mask),
        "test": PartData({name: values[:4] for name, values in features.items()}, [0, 1, 2, 0], list("abcd")),
        "provenance": {"shape": {"x": [30, 50]}},
    }
    return write_shard(path, **(content | changes))  # type: ignore[arg-type]


def test_a_fifth_of_each_class_and_of_its_labelled_rows(tmp_path: Path) -> None:
    original = wide(tmp_path / "wide.h5")
    divided = validation_shard(original, tmp_path / "wide-validation.h5")
    assert_divided(original, divided)
    assert divided.dataset == "wide-validation"
    assert not set(divided.train.ids) & set(original.test.ids)
    assert (divided.test.labels >= 0).all()
    assert divided.test.rows == (original.train.labels >= 0).sum() // 5
    assert original.train.labelled is not None
    assert divided.train.labelled is not None
    for label in range(3):
        for flag in (False, True):
            stratum = (original.train.labels == label) & (original.train.labelled == flag)
            held_out = np.isin(original.train.ids[stratum], divided.test.ids).sum()
            assert abs(held_out - stratum.sum() / 5) < 1
        assert (divided.train.labelled & (divided.train.labels == label)).any()
    assert divided.provenance["validation"] == {
        "of": "wide", "digest": original.digest, "seed": 0,
        "rule": "one row in 5, stratified by class and labelled mask",
    }  # fmt: skip
    assert divided.provenance["shape"] == {"x": [30, 50]}
    assert divided.provenance["original"] == original.provenance


def test_no_group_is_divided(tmp_path: Path) -> None:
    groups = [f"g{row // 20}" if row < 2800 else "" for row in range(3000)]
    plain = wide(tmp_path / "plain.h5")
    train = PartData(
        {name: plain.train.features(name) for name in "xw"}, plain.train.labels, plain.train.ids.tolist(),
        plain.train.labelled, groups=groups,
    )  # fmt: skip
    original = wide(tmp_path / "wide.h5", train=train, test=None)
    divided = validation_shard(original, tmp_path / "wide-validation.h5")
    assert_divided(original, divided)
    assert divided.train.groups is not None
    assert divided.test.groups is not None
    assert not (set(divided.train.groups.tolist()) & set(divided.test.groups.tolist())) - {""}
    for label in range(3):
        held_out, total = (divided.test.labels == label).sum(), (original.train.labels == label).sum()
        assert 0.1 < held_out / total <= 0.21
    alone = PartData({"x": np.zeros((6, 1)), "w": np.zeros((6, 1))}, [0, 1] * 3, list("abcdef"), groups=["g"] * 6)
    modalities = [Modality("x", 1, "gaussian"), Modality("w", 1, "gaussian")]
    single = wide(tmp_path / "single.h5", train=alone, test=None, classes=["a", "b"], modalities=modalities)
    with pytest.raises(DataError, match="its groups are too large to hold one out"):
        validation_shard(single, tmp_path / "single-validation.h5")


def test_a_class_keeps_its_only_labelled_row(make_shard: MakeShard) -> None:
    rows = 200
    labels = np.arange(rows) % 3
    mask = np.arange(rows) < 3  # one of each class
    part = PartData({"x": np.zeros((rows, 4)), "w": np.zeros((rows, 3))}, labels, [f"r{k}" for k in range(rows)], mask)
    original = make_shard(train=part)
    divided = validation_shard(original, original.path.with_name("divided.h5"))
    assert divided.train.labelled is not None
    assert divided.train.labels[divided.train.labelled].tolist() == [0, 1, 2]
    assert divided.test.rows == 40


def test_the_rows_do_not_depend_on_the_order_in_the_file(tmp_path: Path) -> None:
    original = wide(tmp_path / "a.h5", rows=300)
    backwards = PartData(
        {name: original.train.features(name)[::-1] for name in "xw"},
        original.train.labels[::-1],
        original.train.ids[::-1].tolist(),
        original.train.labelled[::-1] if original.train.labelled is not None else None,
    )
    turned = wide(tmp_path / "b.h5", train=backwards)
    first, second = (
        validation_shard(shard, shard.path.with_name(f"v-{shard.path.name}")) for shard in (original, turned)
    )
    assert set(first.test.ids) == set(second.test.ids)


def test_a_sixth_of_mnist(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # of MNIST's training classes
    labels = rng.permutation(np.repeat(np.arange(10), sizes))

    def part(name: str, labels: np.ndarray) -> PartData:
        return PartData({"x": np.zeros((len(labels), 1))}, labels, [f"{name}-{row:05d}" for row in range(len(labels))])

    original = write_shard(
        tmp_path / "hm-mnist.h5", dataset="hm-mnist", classes=list("0123456789"),
        modalities=[Modality("x", 1, "bernoulli")],
        train=part("train", labels), test=part("test", labels[:10]), preset="mnist",
    )  # fmt: skip
    divided = validation_shard(original, tmp_path / "divided.h5")
    assert (divided.train.rows, divided.test.rows) == (50_000, 10_000)
    assert np.abs(np.bincount(divided.test.labels) - np.array(sizes) / 6).max() < 1


def frames(tmp_path: Path, labelled: list[str], objects: int = 3) -> Shard:
    """An RGB-D shard of two categories with some objects of 4 frames each."""
    ids = [
        f"{name}_{k}_1_{frame}" for name in ("cap", "bell_pepper") for k in range(1, objects + 1) for frame in range(4)
    ]
    labels = [int(name.startswith("bell")) for name in ids]
    rng = np.random.default_rng(0)
    part = PartData({"x": rng.random((len(ids), 2))}, labels, ids, [name in labelled for name in ids])
    return write_shard(
        tmp_path / "rgbd-sample-split-2.h5", dataset="rgbd-sample", split=2, classes=["cap", "bell_pepper"],
        modalities=[Modality("x", 2, "nonnegative")], train=part,
        test=PartData({"x": rng.random((2, 2))}, [0, 1], ["cap_9_1_1", "bell_pepper_9_1_1"]),
        provenance={"images": {"dataset": "rgbd-sample"}}, preset="sample",
    )  # fmt: skip


def test_rgbd_holds_out_one_whole_object_of_each_category(tmp_path: Path) -> None:
    original = frames(tmp_path, ["cap_1_1_0", "bell_pepper_3_1_2"])
    path = build_validation(original.path)
    assert path == tmp_path / "rgbd-sample-validation-split-2.h5"
    divided = Shard.open(path)
    assert_divided(original, divided)
    held_out = sorted({object_of(name) for name in divided.test.ids.tolist()})
    assert [name.rpartition("_")[0] for name in held_out] == ["bell_pepper", "cap"]
    assert not {object_of(name) for name in divided.train.ids.tolist()} & set(held_out)
    assert divided.test.rows == 8
    assert not set(held_out) & {"cap_1", "bell_pepper_3"}  # their categories have no other labelled object
    assert "object" in divided.provenance["validation"]["rule"]
    assert "images" not in divided.provenance  # it is not the paper's data, and must not be taken for it


def test_a_category_with_one_object_cannot_be_divided(tmp_path: Path) -> None:
    original = frames(tmp_path, ["cap_1_1_0"], objects=1)
    with pytest.raises(DataError, match="no object of cap can be held out") as caught:
        build_validation(original.path)
    assert str(original.path) in caught.value.message
    assert sorted(tmp_path.iterdir()) == [original.path]


def test_objects_of_names_that_are_read_from_the_right() -> None:
    assert object_of("bell_pepper_2_4_171") == "bell_pepper_2"
    with pytest.raises(DataError, match="'train-00001' is not the id of an RGB-D frame"):
        object_of("train-00001")


def test_groups_of_ones_own(make_shard: MakeShard, tmp_path: Path) -> None:
    ids = [f"{label}/{take}/{k}" for label in range(3) for take in "ab" for k in range(5)]
    part = PartData({"x": np.zeros((30, 4)), "w": np.zeros((30, 3))}, [int(name[0]) for name in ids], ids)
    divided = validation_shard(make_shard(train=part), tmp_path / "v.h5", lambda name: name.rpartition("/")[0])
    assert len({name.rpartition("/")[0] for name in divided.test.ids.tolist()}) == 3
    assert divided.test.rows == 15


def test_names_with_the_suffix(tmp_path: Path) -> None:
    (path,) = shard_paths("nm-digits-r30-n0.2-validation", (), tmp_path)
    assert path == tmp_path / "shards" / "nm-digits-r30-n0.2-validation.h5"
    original, divided = Shard.open(tmp_path / "shards" / "nm-digits-r30-n0.2.h5"), Shard.open(path)
    assert_divided(original, divided)
    assert divided.dataset == "nm-digits-r30-n0.2-validation"
    assert divided.test.rows == 1437 // 5
    written = path.stat().st_mtime_ns
    assert shard_paths("nm-digits-r30-n0.2-validation", (), tmp_path) == [path]
    assert path.stat().st_mtime_ns == written
    with pytest.raises(UsageError, match="has splits"):
        shard_paths("rgbd-sample-validation", (), tmp_path)
    with pytest.raises(DataError, match=r"there is no shard .*rgbd-sample-split-0\.h5") as caught:
        shard_paths("rgbd-sample-validation", [0], tmp_path)
    assert "mmssl extract" in str(caught.value.hint)
    with pytest.raises(UsageError, match="there is no data set 'cifar'"):
        shard_paths("cifar-validation", (), tmp_path)


def test_splits_have_a_file_each(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    original = frames(tmp_path / "shards", [])
    (path,) = shard_paths("rgbd-sample-validation", [2], tmp_path)
    assert path.name == "rgbd-sample-validation-split-2.h5"
    assert_divided(original, Shard.open(path))


def test_what_exists_is_checked(tmp_path: Path) -> None:
    base = build("hm-digits", tmp_path, tmp_path)
    path = build_validation(base)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        build_validation(base)
    path.write_bytes(base.read_bytes())
    with pytest.raises(DataError, match="holds the data set hm-digits, not a validation part of"):
        build_validation(base)
    path.write_bytes(content)
    other = wide(tmp_path / "other.h5", rows=100, dataset="hm-digits")
    with pytest.raises(
        DataError, match=r"was made from a shard with another content \(digest\) than .*other\.h5"
    ) as caught:
        build_validation(other.path, path)
    assert caught.value.hint == f"move {path} away, and run the same command again"
    assert path.read_bytes() == content
    with pytest.raises(DataError, match="is a validation shard already"):
        build_validation(path)


def test_what_cannot_be_divided(tmp_path: Path, make_shard: MakeShard) -> None:
    def part(labels: list[int]) -> PartData:
        rows = len(labels)
        return PartData({"x": np.zeros((rows, 4)), "w": np.zeros((rows, 3))}, labels, [f"r{k}" for k in range(rows)])

    for labels, words in (([-1] * 9, "no training row has a known class"), ([0, 1, 2, 0], "too few to divide")):
        original = make_shard(train=part(labels))
        with pytest.raises(DataError, match=words):
            validation_shard(original, tmp_path / "v.h5")
    assert not (tmp_path / "v.h5").exists()


def test_paths() -> None:
    assert validation_path(Path("a/mine.hdf5")) == Path("a/mine-validation.hdf5")
    assert validation_path(Path("rgbd-64-split-10.h5")) == Path("rgbd-64-validation-split-10.h5")
