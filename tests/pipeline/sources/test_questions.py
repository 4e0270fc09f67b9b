"""The CSV that asks for labels: written, changed as spreadsheets change it, and read."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData
from pipeline.sources.questions import (
    Question,
    class_of,
    files_folder,
    read_answers,
    read_questions,
    shard_mark,
    write_questions,
)
from tests.support.small_shards import part_data, small_shard


def numbered(path: Path, ids: list[str], classes: list[str], groups: list[str] | None = None) -> Shard:
    """A shard with these ids and classes."""
    part = part_data("train", len(ids))
    train = PartData(part.features, part.labels, ids, groups=groups)
    return small_shard(path, train=train, classes=classes)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    return numbered(
        tmp_path_factory.mktemp("shard") / "small.h5",
        ["0007", "1e3", "b", "12", "Löffel-1"],
        ["cup", "food_bag", "03", "1"],
        ["g", "", "h", "", ""],
    )


QUESTIONS = [
    Question(3, "12", "", "", "cup", 0.51239, 0.2, 1.5, {"x": "ask_files/3-x.png"}),
    Question(0, "0007", "g", "food_bag", "cup", 0.4, 0.1, 0.25, {"x": "ask_files/0-x.png"}, {"note": "a, b"}),
    Question(2, "b", "h", "?"),
]


def test_what_was_written_is_read(shard: Shard, tmp_path: Path) -> None:
    path = tmp_path / "ask.csv"
    write_questions(path, QUESTIONS, shard)
    header = path.read_text().splitlines()[0]
    assert header == "row,id,group,label,predicted,probability,disagreement,distance,note,x_file_name,shard"
    first, second, third = read_questions(path, shard)
    assert first.probability == pytest.approx(0.5124)
    assert (second, third.label) == (
        Question(0, "0007", "g", "food_bag", "cup", 0.4, 0.1, 0.25, {"x": "ask_files/0-x.png"}, {"note": "a, b"}),
        "?",
    )
    answers = read_answers(path, shard)
    assert {row: answer.label for row, answer in answers.items()} == {0: "food_bag", 2: None}
    assert answers[0].place.endswith("ask.csv, line 3")
    assert files_folder(path) == tmp_path / "ask_files"


def test_a_shard_without_groups_has_no_column_for_them(tmp_path: Path) -> None:
    plain = small_shard(tmp_path / "plain.h5")
    write_questions(tmp_path / "ask.csv", [Question(1, "train-1")], plain)
    assert (tmp_path / "ask.csv").read_text().splitlines() == [
        "row,id,label,predicted,probability,disagreement,distance,shard",
        f"1,train-1,,,,,,{shard_mark(plain)}",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "row,id,label\n0,0007,cup\n",
        "\ufeffrow;id;label\r\n0;7;cup\r\n",  # a byte order mark, semicolons, an id as a number
        "label\tid\tnotes\ncup\t0007\tsee below\n",
        "ROW,Label\n0.0,CUP\n",
        'row;label;id\n"0,0";cup;"7,0"\n',  # a decimal comma
        "id,label\n7, cup \n",
    ],
)
def test_spreadsheets_change_a_file_and_not_its_meaning(shard: Shard, tmp_path: Path, text: str) -> None:
    path = tmp_path / "ask.csv"
    path.write_bytes(text.encode())
    assert {row: answer.label for row, answer in read_answers(path, shard).items()} == {0: "cup"}


def test_utf_16_is_read(shard: Shard, tmp_path: Path) -> None:
    (tmp_path / "ask.csv").write_bytes("id\tlabel\r\nLöffel-1\tcup\r\n".encode("utf-16"))
    assert {row: answer.label for row, answer in read_answers(tmp_path / "ask.csv", shard).items()} == {4: "cup"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,id\n0,0007\n", "has no column label, so it asks for no labels"),
        ("label\ncup\n", "has no column row or id"),
        ("row,label\n5,cup\n", "line 2: row '5' is not one of the 5 training rows"),
        ("row,label\n-1,cup\n", "row '-1' is not one of"),
        ("row,label\n1.5,cup\n", "row '1.5' is not one of"),
        ("row,id,label\n0,b,cup\n", "is '0007', not 'b'"),
        ("id,label\nzzz,cup\n", "has no training row with the id 'zzz'"),
        ("row,label\n0,cup\n1,cup\n0,cup\n", "line 4: is about the same row as line 2: 0007"),
        ("row,label\n0,cupp\n", "line 2: there is no class 'cupp'; did you mean cup?"),
        ("row,label\n0,Food Bags\n", "did you mean food_bag?"),
        ("row,label\n0,zebra\n", "there is no class 'zebra'"),
        ("row,label,shard\n0,cup,sha256:000000000000\n", "is about rows of other data (sha256:000000000000)"),
        ("row,label\n", "has no rows below its header"),
    ],
)
def test_what_cannot_be_used_is_named(shard: Shard, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ask.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_answers(path, shard)
    assert message in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("text", "name"),
    [("cup", "cup"), (" Cup", "cup"), ("food bag", "food_bag"), ("3", "03"), ("3.0", "03"), ("1,0", "1")],
)
def test_a_class_is_known_in_other_spellings(text: str, name: str) -> None:
    assert class_of(text, ["cup", "food_bag", "03", "1"], "here") == name


def test_new_classes_have_to_be_allowed(shard: Shard, tmp_path: Path) -> None:
    path = tmp_path / "ask.csv"
    path.write_text("row,label\n0,saucer\n1,Cup\n")
    with pytest.raises(DataError, match="no class 'saucer'") as caught:
        read_answers(path, shard)
    assert "--new-classes" in str(caught.value.hint)
    assert [answer.label for answer in read_answers(path, shard, new_classes=True).values()] == ["saucer", "cup"]


@pytest.mark.parametrize("label", ["_", "-1", "nan", "unlabelled"])
def test_a_text_that_means_no_label_is_no_new_class(label: str) -> None:
    with pytest.raises(DataError):
        class_of(label, ["cup"], "here", new_classes=True)


@pytest.mark.parametrize("label", ["", " ", "_", "-1", "nan", "unlabelled"])
def test_no_label_leaves_a_row_for_later(shard: Shard, tmp_path: Path, label: str) -> None:
    (tmp_path / "ask.csv").write_text(f"row,label\n0,{label}\n")
    assert read_answers(tmp_path / "ask.csv", shard) == {}


def test_ids_that_are_equal_as_numbers_need_the_row(tmp_path: Path) -> None:
    twins = numbered(tmp_path / "twins.h5", ["01", "1", "001", "x", "y"], ["a", "b", "c"])
    path = tmp_path / "ask.csv"
    path.write_text("id,label\n1.0,a\n")
    with pytest.raises(DataError, match=r"has several rows with the id '1\.0'"):
        read_answers(path, twins)
    path.write_text("row,id,label\n2,1.0,a\n")
    assert list(read_answers(path, twins)) == [2]


cells = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8).map(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_and_separator_reads_the_same(shard: Shard, tmp_path: Path, data: Any) -> None:
    rows = data.draw(st.permutations(range(5)))
    labels = {row: data.draw(st.sampled_from(["", "?", "cup", "food_bag", "03"])) for row in rows}
    note = {row: data.draw(cells) for row in rows}
    delimiter = data.draw(st.sampled_from(",;\t"))
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerow(["id", "label", "remarks", "row", "shard"])
    writer.writerows([shard.train.ids[row], labels[row], note[row], row, shard_mark(shard)] for row in rows)
    path = tmp_path / "any.csv"
    path.write_bytes(text.getvalue().encode())
    assert [question.row for question in read_questions(path, shard)] == rows
    answers = {row: answer.label for row, answer in read_answers(path, shard).items()}
    assert answers == {row: None if labels[row] == "?" else labels[row] for row in rows if labels[row]}


def test_modalities_name_the_columns_of_pictures(tmp_path: Path) -> None:
    part = part_data("train", 20)
    shard = small_shard(
        tmp_path / "m.h5",
        train=PartData({"rgb": part.features["x"], "depth": part.features["w"]}, part.labels, part.ids),
        test=None,
        modalities=[Modality("rgb", 4, "bernoulli"), Modality("depth", 3, "nonnegative")],
    )
    asked = Question(0, "train-0", files={"depth": "ask_files/d.png", "rgb": "ask_files/c.png"})
    write_questions(tmp_path / "ask.csv", [asked], shard)
    assert "rgb_file_name,depth_file_name,shard" in (tmp_path / "ask.csv").read_text()
    assert read_questions(tmp_path / "ask.csv", shard)[0].files == asked.files
