"""Vectors: the same rows as .npz, as .npy files and as CSV; what lacks, and what does not fit together."""

import csv
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError
from pipeline.sources.reading import read_source
from pipeline.sources.rows import Source, check_modalities

Arrays = Mapping[str, NDArray[Any]]
NAN = float("nan")
X = np.array([[0.5, 1, 2], [NAN, NAN, NAN], [7, 8, 9]], np.float32)
W = np.array([[1], [2], [NAN]], np.float32)
BOTH: dict[str, NDArray[Any]] = {"x": X, "w": W, "label": np.array(["cup", "", "hat"])}


def write_npz(folder: Path, content: Arrays) -> Path:
    np.savez(folder / "mine.npz", **dict[str, Any](content))
    return folder / "mine.npz"


def write_npy(folder: Path, content: Arrays) -> Path:
    (folder / "mine").mkdir()
    for name, array in content.items():
        np.save(folder / "mine" / f"{name}.npy", array)
    return folder / "mine"


def write_csv(folder: Path, content: Arrays) -> Path:
    with (folder / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns: dict[str, list[object]] = {}
        for name, array in content.items():
            if array.ndim == 1:
                columns[name] = array.tolist()
            else:
                columns |= {
                    f"{name}.{k}": ["" if v != v else v for v in array[:, k].tolist()] for k in range(array.shape[1])
                }
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return folder / "mine.csv"


WRITERS = pytest.mark.parametrize("write", [write_npz, write_npy, write_csv])


@WRITERS
def test_all_forms_hold_the_same(write: Any, tmp_path: Path) -> None:
    source = read_source(write(tmp_path, BOTH))
    assert source.ids == ("0000", "0001", "0002")
    assert source.labels == ("cup", None, "hat")
    assert set(source.modalities) == {"x", "w"}
    np.testing.assert_array_equal(source.vectors["x"], X)
    np.testing.assert_array_equal(source.vectors["w"], W)
    assert source.has("x").tolist() == [True, False, True]
    assert source.has("w").tolist() == [True, True, False]
    assert (source.groups, source.test, source.left_out) == (None, None, {})


@WRITERS
def test_columns_mean_what_they_are_called(write: Any, tmp_path: Path) -> None:
    columns = {
        "y": np.array([3, -1, 12]),
        "id": np.array(["a", "b", "c"]),
        "group": np.array(["g", "g", ""]),
        "split": np.array(["train", "train", "test"]),
        "day": np.array([1, 2, 2]),
    }
    path = write(tmp_path, {"x": np.eye(3)} | columns)
    source = read_source(path)
    assert (source.ids, source.labels) == (("a", "b", "c"), ("3", None, "12"))
    assert source.groups == ("g", "g", "")
    assert source.test is not None
    assert source.test.tolist() == [False, False, True]
    assert source.notes == ("columns that are not used: day",)
    assert read_source(path, "day").groups == ("1", "2", "2")
    with pytest.raises(DataError, match="has no column 'folder' to group by"):
        read_source(path, "folder")


@WRITERS
def test_a_row_with_nothing_is_listed(write: Any, tmp_path: Path) -> None:
    source = read_source(write(tmp_path, {"x": X, "w": W[[0, 2, 1]], "label": np.array(["a", "b", ""])}))
    assert source.ids == ("0000", "0002")
    assert source.labels == ("a", None)
    assert list(source.left_out.values()) == ["has no modality at all"]
    assert next(iter(source.left_out)) in ("row 1", "line 3")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, -1, 2], ("1", None, "2")),
        ([1.0, NAN, 2.0], ("1", None, "2")),
        ([0.0, -1.0, 2.0], ("0", None, "2")),
        (["007", "_", "Unlabelled"], ("007", None, None)),
        ([b"cup", b"", b"hat"], ("cup", None, "hat")),
        ([True, False, True], ("True", "False", "True")),
        (["1.5", "nan", "2.0"], ("1.5", None, "2.0")),
    ],
)
def test_labels_of_all_kinds(labels: list[object], expected: tuple[str | None, ...], tmp_path: Path) -> None:
    assert read_source(write_npz(tmp_path, {"x": np.eye(3), "label": np.array(labels)})).labels == expected


def test_a_modality_that_every_row_lacks_can_be_predicted_but_not_learned(tmp_path: Path) -> None:
    source = read_source(write_npz(tmp_path, BOTH | {"x": np.full((3, 2), NAN)}))
    assert source.ids == ("0000", "0001")
    assert not source.has("x").any()
    with pytest.raises(DataError, match="no row has any value of the modality x"):
        check_modalities(source)


def test_one_npy_file_is_one_modality(tmp_path: Path) -> None:
    np.save(tmp_path / "camera.npy", np.eye(4))
    source = read_source(tmp_path / "camera.npy")
    assert source.modalities == ("camera",)
    assert source.labels_from is None


@WRITERS
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.array([[1, NAN, 2], [1, 2, 3], [1, 2, 3]])}, r"x has 2 numbers of 3 in (row 0|line 2)"),
        ({"x": np.array([[1, 2, 3], [1, np.inf, 3], [1, 2, 3]])}, r"x has 2 numbers of 3 in (row 1|line 3)"),
        ({"x": np.full((3, 2), NAN), "w": np.full((3, 2), NAN)}, "no row has any value of any modality"),
        ({"x+y": X}, r"a modality cannot be named 'x\+y'"),
        ({"id": np.array(["a", "b", "a"])}, "the id 'a' occurs twice"),
        ({"split": np.array(["a", "train", "test"])}, "the split of 0000 is 'a', not train or test"),
    ],
)
def test_what_does_not_fit_is_one_sentence(write: Any, change: Arrays, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_source(write(tmp_path, BOTH | dict(change)))
    assert "mine" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.zeros((4, 2))}, "(w has 3 rows, but x has 4|x has 4 rows, but w has 3)"),
        ({"label": np.array(["a"])}, "label has 1 rows, but . has 3"),
        ({"x": np.zeros((3, 8, 8))}, r"x holds float64 of the shape \(3, 8, 8\)"),
        ({"x": np.array([["a"], ["b"], ["c"]])}, "x holds <U1 of the shape"),
        ({"x": np.zeros((3, 2), complex)}, "'x' holds complex128, not numbers or text"),
        ({"label": np.zeros((3, 2))}, "label holds float64 of the shape .* one value per row"),
        ({"label": np.array(["a", None, 3], object)}, "'label' holds Python objects, which are never unpickled"),
    ],
)
@pytest.mark.parametrize("write", [write_npz, write_npy])
def test_arrays_that_do_not_fit(write: Any, change: Arrays, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        read_source(write(tmp_path, BOTH | dict(change)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x.0,x.2,label\n1,2,a\n", r"the column x\.1 is missing, though there is x\.2"),
        ("x.1,x.2,label\n1,2,a\n", r"the column x\.0 is missing, though there is x\.1"),
        ("x.0,x.1,label\n1,two,a\n", r"line 2: x\.1 is 'two', not a number"),
        ("x.0,x.1,label\n1,2,a\n1,,a\n", "x has 1 numbers of 2 in line 3"),
        ("x.0,x.1,label\n1,2,a\n1,2\n", "line 3: has 2 cells, but the header names 3 columns"),
        ('x.0,x.1,label\n"1,5",2,a\n', r"line 2: x\.0 is '1,5', not a number"),
        ("a,b\n1,2\n", "its columns name neither pictures nor vectors"),
    ],
)
def test_csv_that_does_not_fit(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_source(tmp_path / "mine.csv")


def test_damaged_files(tmp_path: Path) -> None:
    good = write_npz(tmp_path, BOTH).read_bytes()
    for content in (b"", b"PK", good[:200], good[:-30]):
        (tmp_path / "mine.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"mine\.npz"):
            read_source(tmp_path / "mine.npz")
    np.save(tmp_path / "x.npy", X)
    content = (tmp_path / "x.npy").read_bytes()
    for size in (0, 20, len(content) - 3):
        (tmp_path / "x.npy").write_bytes(content[:size])
        with pytest.raises(
            DataError, match=r"x\.npy: (is not an intact file of NumPy arrays|'x' is (cut short|declared as))"
        ):
            read_source(tmp_path / "x.npy")
    np.savez(tmp_path / "mine.npz", label=np.array(["a", "b"]))
    with pytest.raises(DataError, match="there is no array of vectors in it"):
        read_source(tmp_path / "mine.npz")


FLOATS = st.floats(-1e6, 1e6, width=32)
TABLES = st.integers(1, 6).flatmap(
    lambda rows: st.tuples(
        st.dictionaries(
            st.text("abxyz_é", min_size=1, max_size=4).filter(lambda name: name not in ("y", "id")),
            st.integers(1, 4).flatmap(lambda width: arrays(np.float32, (rows, width), elements=FLOATS)),
            min_size=1,
            max_size=3,
        ),
        arrays(np.bool_, (3, rows)),
        st.lists(st.sampled_from(["cup", "hat", "", "a b", "-1"]), min_size=rows, max_size=rows),
    )
)


@given(TABLES, st.sampled_from([write_npz, write_npy, write_csv]))
def test_what_is_found_is_what_was_written(
    table: tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_], list[str]], write: Any
) -> None:
    modalities, lacking, labels = table
    lacking[0] = False  # at least the first modality is there
    for values, missing in zip(modalities.values(), lacking, strict=False):
        values[missing & ~missing.all()] = NAN
    with tempfile.TemporaryDirectory() as name:
        source: Source = read_source(write(Path(name), modalities | {"label": np.array(labels)}))
    assert source.labels == tuple(None if label in ("", "-1") else label for label in labels)
    assert source.vectors.keys() == modalities.keys()
    for key, values in modalities.items():
        np.testing.assert_array_equal(source.vectors[key], values)
