"""Multiple Features: both file formats, views that do not fit together, and the real files where they are at hand."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import catalogue, mfeat
from pipeline.datasets.manifests import load
from pipeline.datasets.mfeat import VIEWS, build, check_digits, locate, parse_csv, parse_text, read, standardise
from pipeline.datasets.resolve import shard_paths
from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Modality, Shard


def csv(values: np.ndarray, digits: list[object]) -> bytes:
    header = ",".join(map(str, [*range(values.shape[1]), 0]))
    rows = [",".join([*map(repr, row), str(digit)]) for row, digit in zip(values.tolist(), digits, strict=True)]
    return "\n".join([header, *rows, ""]).encode()


def text(values: np.ndarray) -> bytes:
    return "".join("  " + "  ".join(map(repr, row)) + "\n" for row in values.tolist()).encode()


VALUES = np.random.default_rng(0).normal(size=(20, 3))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose raw/mfeat holds the archive's six text files with made-up numbers."""
    root = tmp_path_factory.mktemp("mfeat")
    rng = np.random.default_rng(0)
    (root / "raw" / "mfeat").mkdir(parents=True)
    for view, width in VIEWS.items():
        values = rng.integers(0, 7, (2000, width)).astype(float)
        values[:, 0] = np.repeat(np.arange(10), 200)
        values[:, 1] = 5
        (root / "raw" / "mfeat" / f"mfeat-{view}").write_bytes(text(values))
    return root


def test_both_formats_hold_the_same() -> None:
    digits = [digit for digit in range(10) for _ in range(2)]
    from_csv = parse_csv(csv(VALUES, list(digits)), 3, "a.csv")
    from_text = parse_text(text(VALUES), 3, "a", rows_per_digit=2)
    for view in (from_csv, from_text):
        np.testing.assert_array_equal(view.values, VALUES)
        assert view.digits.tolist() == digits
    check_digits([from_csv, from_text])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"a\.csv, line 1: is not a header"),
        (b"0,1,0\n1,2,3\n", r"a\.csv, line 1: is not a header of column numbers 0\.\.2"),
        (csv(VALUES[:1], [1])[14:], r"line 1: is not a header"),
        (b"0,1,2,0\n", "has a header, but no rows"),
        (b"0,1,2,0\n1,2,3,4\n1,2,3\n", r"a\.csv, line 3: has 2 values, not the 3 of this view"),
        (b"0,1,2,0\n1,2,3,4,5\n", "line 2: has 4 values, not the 3"),
        (csv(VALUES[:2], [1, 10]), r"a\.csv, line 3: its last column is '10', not a digit"),
        (csv(VALUES[:1], [1.0]), r"line 2: its last column is '1\.0', not a digit"),
        (csv(VALUES[:1], ["x"]), "line 2: its last column is 'x', not a digit"),
        (b"0,1,2,0\n1,two,3,4\n", "line 2: holds a value that is not a number .*'two'"),
        (b"0,1,2,0\n1,nan,3,4\n", "line 2: holds a value that is not finite"),
        (b"0,1,2,0\n1,\xff,3,4\n", "is not plain text"),
    ],
)
def test_bad_csv(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parse_csv(content, 3, "a.csv")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (text(VALUES[:19]), "a: has 19 rows, not 2 for each of ten digits"),
        (text(VALUES) + b"1 2 3\n", "has 21 rows"),
        (b"", "has 0 rows"),
        (text(VALUES[:, :2]), "a, line 1: has 2 values, not the 3"),
        (text(VALUES[:19]) + b"1 2 x\n", "a, line 20: holds a value that is not a number"),
    ],
)
def test_bad_text(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_text(content, 3, "a", rows_per_digit=2)


def test_views_of_other_digits() -> None:
    one, other, short = (parse_csv(csv(VALUES[: len(d)], list(d)), 3, d) for d in ("0123", "0133", "012"))
    with pytest.raises(DataError, match=r"0133 has the digit 3 in row 2, but 0123 has 2: .* not of the same digits"):
        check_digits([one, one, other])
    with pytest.raises(DataError, match="012 has 3 rows, but 0123 has 4"):
        check_digits([one, short])


def test_the_training_rows_scale_all_rows() -> None:
    values = np.array([[0.0, 7, 1], [2, 7, 1], [9, 8, 1]])
    np.testing.assert_array_equal(standardise(values, np.array([0, 1])), [[-1, 0, 0], [1, 0, 0], [8, 0, 0]])


def test_the_archives_text_files_become_a_shard(archive: Path) -> None:
    (path,) = shard_paths("mfeat", (), archive)
    assert path == archive / "shards" / "mfeat.h5"
    shard = Shard.open(path)
    shard.verify()
    assert (shard.dataset, shard.preset, shard.classes) == ("mfeat", None, tuple("0123456789"))
    assert shard.modalities == tuple(Modality(view, width, "gaussian") for view, width in VIEWS.items())
    assert (shard.train.rows, shard.test.rows) == (1600, 400)
    assert np.bincount(shard.test.labels).tolist() == [40] * 10
    assert sorted([*shard.train.ids, *shard.test.ids]) == [f"{row:04d}" for row in range(2000)]
    for part in (shard.train, shard.test):
        assert part.labels.tolist() == [int(name) // 200 for name in part.ids.tolist()]
    for view in VIEWS:
        train = shard.train.features(view)
        np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(np.delete(train.std(0), 1), 1, atol=1e-5)
        assert not train[:, 1].any()  # constant
        assert not np.allclose(shard.test.features(view).mean(0), 0, atol=1e-5)
    written = path.stat().st_mtime_ns
    assert build(archive / "shards", archive / "absent") == path  # without the raw files
    assert path.stat().st_mtime_ns == written


def test_a_view_that_is_missing(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive / "raw", tmp_path / "raw")
    (tmp_path / "raw" / "mfeat" / "mfeat-zer").unlink()
    with pytest.raises(DataError, match=r"the view zer of mfeat is missing: neither mfeat-zer\.csv\.gz nor") as caught:
        build(tmp_path / "shards", tmp_path / "raw")
    assert str(tmp_path / "raw" / "mfeat") in caught.value.message
    for word in ("data set 72", "archive.ics.uci.edu", "mfeat-zer", str(tmp_path / "raw" / "mfeat")):
        assert word in str(caught.value.hint)
    with pytest.raises(DataError, match="the view zer of mfeat is missing"):
        catalogue.fetch("mfeat", tmp_path)
    assert not (tmp_path / "shards").exists()


def test_csv_files_of_other_bytes_are_named(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive / "raw", tmp_path / "raw")
    path = tmp_path / "raw" / "mfeat" / "mfeat-mor.csv.gz"
    path.write_bytes(gzip.compress(csv(VALUES, [0] * 20)))
    with pytest.raises(DataError, match=r"mfeat-mor\.csv\.gz: has .* bytes, not the 18,878") as caught:
        locate(tmp_path / "raw")
    assert caught.value.hint == f"move {path} away, and run the same command to learn where to get it"
    paths = {view: archive / "raw" / "mfeat" / f"mfeat-{view}" for view in VIEWS} | {"mor": path}
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"mfeat-mor\.csv\.gz: cannot be read"):
        read(paths)


def test_the_catalogue_lists_it_once(archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for root, place in ((archive, archive / "raw" / "mfeat"), (tmp_path, None)):
        (entry,) = [entry for entry in catalogue.list_data_sets(root) if entry.name == "mfeat"]
        assert (entry.licence, entry.place) == ("CC BY 4.0", place)
    assert catalogue.fetch("mfeat", archive) == catalogue.verify("mfeat", archive) == []
    assert "no checksum is known of mfeat-fou" in caplog.text


def test_a_shard_of_another_name_in_its_place(archive: Path, tmp_path: Path) -> None:
    path = shard_paths("hm-digits", (), tmp_path)[0]
    path.rename(path.with_name("mfeat.h5"))
    with pytest.raises(DataError, match="holds the data set hm-digits, not mfeat"):
        build(path.parent, archive / "raw")


def test_the_real_files(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (real_data / "mfeat").is_dir():
        pytest.skip(f"mfeat is not in {real_data}")
    monkeypatch.setenv("MMSSL_DATA", str(real_data))
    shard = Shard.open(build(tmp_path / "shards", tmp_path / "raw"))
    assert not (tmp_path / "raw").exists()
    assert np.bincount(shard.train.labels).tolist() == [160] * 10
    assert shard.provenance["source"]["sha256"] == {file.name: file.sha256 for file in load(mfeat.NAME).files}
    views = read(locate(tmp_path / "raw"))
    assert views["pix"].values.min() == 0
    assert views["pix"].values.max() == 6
    assert views["mor"].values[0].tolist() == [1, 0, 0, 133.15, 1.3117, 1620.2]
    assert catalogue.verify("mfeat", tmp_path) == []
    (divided,) = map(Shard.open, shard_paths("mfeat-validation", (), tmp_path))
    assert (divided.train.rows, divided.test.rows) == (1280, 320)
    assert np.bincount(divided.test.labels).tolist() == [32] * 10
