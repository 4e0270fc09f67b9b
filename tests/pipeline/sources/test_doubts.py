"""Data that are read, but most likely not as they were meant: each doubt is said in a sentence."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.errors import DataError
from pipeline.sources.doubts import label_doubts, look_alikes
from pipeline.sources.folders import read_folder
from pipeline.sources.parts import divide
from pipeline.sources.reading import read_source
from pipeline.sources.rows import label_of
from pipeline.sources.survey import survey
from tests.support.own_pictures import colour, depth, save, write_pictures


def notes_of(path: Path) -> str:
    source = read_source(path)
    return "\n".join(survey(source, divide(source, None, 0)).notes)


@pytest.mark.parametrize(
    "names",
    [("Cup", "cup"), ("1", "1.0", "01"), ("a b", "a  b", "a_b", "a\u00a0b"), ("cup", "cup\u200b"), ("ﬁn", "fin")],
)
def test_names_that_look_alike(names: tuple[str, ...]) -> None:
    assert look_alikes([*names, "hat"]) == [list(names)]
    (sentence,) = label_doubts([*names, "hat", "hat", None] * 2)
    assert f"look alike, and are {len(names)} classes" in sentence


@given(st.lists(st.text(max_size=8) | st.text("aAbB1 .-_", max_size=4), unique=True, max_size=8))
def test_each_name_is_alike_to_those_of_one_group_at_most(names: list[str]) -> None:
    groups = look_alikes(names)
    assert sorted(name for group in groups for name in group) == sorted({n for group in groups for n in group})
    words = [name for name in names if name.isascii() and name.isalpha()]
    capitals = [[name.upper() for name in group] for group in look_alikes(words)]
    assert look_alikes([name.upper() for name in words]) == capitals


@pytest.mark.parametrize("name", ["NA", "N/A", "#N/A", "null", "None", "<NA>", "?"])
def test_a_class_named_like_nothing(name: str) -> None:
    (sentence,) = label_doubts([name, "cup", "cup", name])
    assert sentence.startswith(f"the label {name!r} of 2 rows is taken as a class")


def test_labels_that_are_numbers_of_rows_and_no_doubt_about_others() -> None:
    assert "have one labelled row" in label_doubts(list("abcdef"))[0]
    assert label_doubts(["cup", "hat", "mug", None] * 3) == []
    assert [label_of(text) for text in ("-1", "-1.0", "-1.00", "-1.5")] == [None, None, None, "-1.5"]


def written(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def test_equal_and_filled_rows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(8, 3))
    x[7], x[2], x[[3, 4]] = x[0], x[1], -999
    path = written(tmp_path, x=x, label=list("ababbaba"), split=["train"] * 6 + ["test"] * 2)
    notes = notes_of(path)
    assert "1 of 2 test rows are equal to training rows (0007)" in notes
    assert "labelled rows are equal to rows with another label (0001, 0002" in notes.replace("0000, ", "")
    assert "x holds nothing but -999 in 2 rows" in notes


@pytest.mark.parametrize(
    ("text", "values", "note"),
    [
        ("label;x.0;x.1\na;1,5;-2\nb;,25;3\n".replace(";,25", ";0,25"), [[1.5, -2], [0.25, 3]], "decimal points in x"),
        ('"sep=;"\nlabel;x.0;x.1\na;1.5;2\nb;2;3\n', [[1.5, 2], [2, 3]], ""),
        ("sep=,\r\nlabel,x.0,x.1\r\na,1.5,2\r\nb,2,3\r\n", [[1.5, 2], [2, 3]], ""),
        ("label,x.0,x.1,,\na,1,2,,\nb,2,3,,\n", [[1, 2], [2, 3]], ""),
        ("label,y,x.0,x.1\na,7,1,2\nb,8,2,3\n", [[1, 2], [2, 3]], "columns that are not used: y"),
        ("label,x.0,x.1,w.0\na,1,2,3\nb,NA,#N/A,4\n", [[1, 2], [np.nan, np.nan]], ""),
    ],
)
def test_tables_of_spreadsheets(text: str, values: list[list[float]], note: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, newline="")
    np.testing.assert_array_equal(read_source(tmp_path / "a.csv").vectors["x"], np.array(values, np.float32))
    assert note in notes_of(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (",label,x.0\n0,a,1\n", "a column without a name, of which a cell is '0'", "index=False"),
        ("# made today\nlabel,x.0\na,1\n", "no comma, semicolon or tab is in its first line", "names the columns"),
        ("label x.0\na 1\n", "no comma, semicolon or tab is in its first line", "label,x.0"),
        ('label,x.0\n"5" tall",1\n', "line 2: is not a CSV file", "doubled"),
        ('sep=,\nlabel,x.0\n"5" tall",1\n', "line 3: is not a CSV file", "doubled"),
        ('label,x.0\na,"1,234.5"\n', "'1,234.5', not a number", "decimal point"),
        ("label;x.0;x.1\na;1,5;1\nb;2.5;1\n", "'1,5', not a number", "decimal point"),
        ("label,x.0\na,1_000\n", "'1_000', not a number", "empty"),
        ("label,x.0\na,1e300\n", "a number in line 2 that is beyond float32", "scale"),
    ],
)
def test_tables_that_are_refused_with_what_mends_them(text: str, message: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_source(tmp_path / "a.csv")
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_labels_under_another_name_or_in_another_encoding(tmp_path: Path) -> None:
    source = read_source(written(tmp_path, x=np.eye(3), target=["a", "b", "a"]))
    with pytest.raises(DataError, match="has no column label") as caught:
        divide(source, None, 0)
    assert "columns that are not used: target" in str(caught.value.hint)
    with pytest.raises(DataError, match="are no UTF-8 text"):
        read_source(written(tmp_path, x=np.eye(3), label=np.array([b"\xff", b"\xfe", b"a"])))


@pytest.mark.parametrize(
    ("colour_name", "depth_name"),
    [("color_{}", "depth_{}"), ("000{}", "{}"), ("1305031102.{}75304", "1305031102.{}60407")],
)
def test_names_of_two_cameras_that_do_not_match(colour_name: str, depth_name: str, tmp_path: Path) -> None:
    for row in range(3):
        save(tmp_path / "cup" / "rgb" / f"{colour_name.format(row)}.png", colour(row))
        save(tmp_path / "cup" / "depth" / f"{depth_name.format(row)}.png", depth(row))
    (note,) = read_folder(tmp_path).notes
    assert note.startswith("0 of 6 rows have both colour and depth")
    assert f"{colour_name.format(0)}.png and {depth_name.format(0)}.png" in note


def test_folders_of_parts_and_of_network_storage(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_pictures(tmp_path / part)
    assert "the folders test, train are not taken as parts" in read_folder(tmp_path).notes[0]
    shutil.move(tmp_path / "train", tmp_path / "here")
    shutil.copytree(tmp_path / "here" / "cup", tmp_path / "@eaDir" / "cup")
    source = read_folder(tmp_path / "here")
    assert source.notes == ()
    assert not any("@eaDir" in name for name in read_folder(tmp_path).ids)
