"""`metadata.csv`: spreadsheets of all kinds, and rows that cannot be used."""

import csv
import io
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.errors import DataError
from pipeline.sources.reading import read_source
from pipeline.sources.rows import Source
from tests.support.own_pictures import colour, save


def written(folder: Path, text: str | bytes, *pictures: str) -> Path:
    """A folder with these pictures and this metadata.csv."""
    for name in pictures:
        save(folder / name, colour(1))
    (folder / "metadata.csv").parent.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


PLAIN = "rgb_file_name,depth_file_name,label,group,split\nrgb/1.png,depth/1.png,cup,a,train\nrgb/2.png,,,b,test\n"
PICTURES = ("rgb/1.png", "depth/1.png", "rgb/2.png")


def rows_of(source: Source) -> list[tuple[object, ...]]:
    """A source, row by row."""
    names = [
        [None if path is None else path.relative_to(source.base).as_posix() for path in files]
        for files in source.pictures.values()
    ]
    return list(zip(source.ids, *names, source.labels, strict=True))


EXPECTED = [("1", "rgb/1.png", "depth/1.png", "cup"), ("2", "rgb/2.png", None, None)]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN.replace("/", "\\"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " , ").replace("label", "Label"),
        PLAIN.replace("\n", "\n,,,,\n\n"),
        PLAIN.replace("rgb_file_name", "file_name"),
        PLAIN.replace("rgb_file_name", "color_file_name").replace("depth_file_name", "aligned_depth_file_name"),
        PLAIN.replace("rgb/", "./rgb/").replace("depth/1", "rgb/../depth/1"),
        PLAIN.replace(",,,b", ",,-1,b"),
    ],
    ids=[
        "plain", "CRLF", "BOM", "Windows paths", "semicolons", "tabs", "spaces", "empty lines", "file_name", "aliases",
        "dots", "-1",
    ],
)  # fmt: skip
def test_spreadsheets_of_all_kinds_say_the_same(text: str, tmp_path: Path) -> None:
    source = read_source(written(tmp_path, text, *PICTURES))
    assert rows_of(source) == EXPECTED
    assert source.groups == ("a", "b")
    assert source.test is not None
    assert source.test.tolist() == [False, True]
    assert not source.left_out
    assert rows_of(read_source(tmp_path / "metadata.csv")) == EXPECTED


def test_it_is_found_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, PLAIN, *PICTURES)
    monkeypatch.chdir(tmp_path)
    assert rows_of(read_source(Path("metadata.csv"))) == rows_of(read_source(Path())) == EXPECTED
    written(tmp_path / "inner", PLAIN.replace("rgb/1", "../rgb/1"))
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(DataError, match=r"lies outside the folder of metadata\.csv"):
        read_source(Path("metadata.csv"))


@pytest.mark.parametrize("composed", [True, False])
def test_spaces_and_umlauts(composed: bool, tmp_path: Path) -> None:
    name = "Bilder vom Müsli/schöne Schüssel.png"
    text = f"rgb_file_name,label\n{name},Schüssel\n"
    forms = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    names = unicodedata.normalize("NFD", name), unicodedata.normalize("NFC", name)
    source = read_source(written(tmp_path, forms[composed], names[composed]))
    assert source.labels == ("Schüssel",)
    assert source.ids == ("Bilder vom Müsli/schöne Schüssel",)


def test_a_group_may_be_any_column_or_the_folder(tmp_path: Path) -> None:
    text = "rgb_file_name,label,day,note\na/rgb/1.png,x,mon,n\nb/rgb/1.png,y,tue,n\n"
    folder = written(tmp_path, text, "a/rgb/1.png", "b/rgb/1.png")
    assert read_source(folder).groups is None
    assert read_source(folder, "day").groups == ("mon", "tue")
    assert read_source(folder, "folder").groups == ("a", "b")
    assert read_source(folder, "day").notes == ("columns that are not used: day, note",)
    with pytest.raises(DataError, match="has no column 'week' to group by") as caught:
        read_source(folder, "week")
    assert caught.value.hint == "--group may be day, note, folder"


def test_absolute_paths_inside_the_folder_are_taken(tmp_path: Path) -> None:
    folder = written(tmp_path, f"rgb_file_name,label\n{tmp_path}/rgb/1.png,cup\n", "rgb/1.png")
    assert rows_of(read_source(folder)) == [("1", "rgb/1.png", "cup")]


def test_rows_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    folder = written(tmp_path, PLAIN + "rgb/9.png,,cup,a,train\n,,cup,a,train\n", *PICTURES)
    source = read_source(folder)
    assert rows_of(source) == EXPECTED
    assert source.left_out == {"line 4": "there is no file rgb/9.png", "line 5": "names no picture at all"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows below its header"),
        ("rgb_file_name,label\n", "has no rows below its header"),
        ("rgb_file_name,label,label\nrgb/1.png,a,b\n", "its header has the column 'label' twice"),
        ("rgb_file_name,,label\nrgb/1.png,a,b\n", "its header has a column without a name"),
        ("rgb_file_name,label\nrgb/1.png\n", "line 2: has 1 cells, but the header names 2 columns"),
        ("rgb_file_name,label\nrgb/1.png,a,b\n", "line 2: has 3 cells, but the header names 2 columns"),
        ("rgb_file_name,label\n../other.png,a\n", r"line 2: '\.\./other\.png' lies outside the folder"),
        ("rgb_file_name,label\nrgb/../../other.png,a\n", "line 2: .* lies outside the folder"),
        ("rgb_file_name,label\n/etc/passwd.png,a\n", "line 2: '/etc/passwd.png' lies outside the folder"),
        ("rgb_file_name,label\nC:\\data\\1.png,a\n", "line 2: .* is a path of another computer or person"),
        ("rgb_file_name,label\n~/1.png,a\n", "line 2: .* is a path of another computer or person"),
        ("rgb_file_name,label\nrgb/1.txt,a\n", r"line 2: 'rgb/1\.txt' is no picture that can be read"),
        ("rgb_file_name,label\nrgb/9.png,a\n", r"not one of its rows has its pictures: line 2 there is no file rgb/9"),
        ("thermal_file_name,label\nrgb/1.png,a\n", "names pictures of 'thermal', but pictures are colour or depth"),
        ("rgb_file_name,color_file_name\nrgb/1.png,\n", "the columns rgb_file_name and color_file_name both name"),
        ("rgb_file_name,x.0\nrgb/1.png,1\n", "its columns name both pictures and vectors"),
        ("picture,label\nrgb/1.png,a\n", "its columns name neither pictures nor vectors"),
        ("rgb_file_name,label\nrgb/1.png,a\nrgb/1.png,b\n", "the id '1' occurs twice"),
        ("rgb_file_name,id\nrgb/1.png,a\nrgb/2.png,a\n", "the id 'a' occurs twice"),
        ("rgb_file_name,id\nrgb/1.png,\n", "row 0 has an empty id"),
        ("rgb_file_name,split\nrgb/1.png,validation\n", "the split of 1 is 'validation', not train or test"),
        ('rgb_file_name,label\n"rgb/1.png,a\n', "is not a CSV file"),
        (b"rgb_file_name,label\nrgb/1.png,\xfc\n", "is not UTF-8 text"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text: str | bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_source(written(tmp_path / "mine", text, "rgb/1.png", "rgb/2.png"))
    assert "metadata.csv" in caught.value.message
    assert "\n" not in caught.value.message


CELLS = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=8).map(str.strip)
ROWS = st.lists(
    st.tuples(
        st.booleans(), st.booleans(), CELLS.filter(lambda text: text.casefold() != "nan"), CELLS, st.booleans()
    ).filter(lambda row: row[0] or row[1]),
    min_size=1,
    max_size=8,
)


@given(ROWS, st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_what_is_found_is_what_was_written(
    rows: list[tuple[bool, bool, str, str, bool]], delimiter: str, newline: str, encoding: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator=newline)
        writer.writerow(["rgb_file_name", "label", "depth_file_name", "split", "group"])
        for number, (has_rgb, has_depth, label, group, test) in enumerate(rows):
            files = [f"{camera}/{number}.png" for camera in ("rgb", "depth")]
            for file in files:
                (root / file).parent.mkdir(exist_ok=True)
                (root / file).touch()
            writer.writerow([files[0] * has_rgb, label, files[1] * has_depth, "test" if test else "train", group])
        (root / "metadata.csv").write_bytes(text.getvalue().encode(encoding))
        source = read_source(root)
        assert source.ids == tuple(map(str, range(len(rows))))
        for camera, column in (("rgb", 0), ("depth", 1)):
            if any(row[column] for row in rows):
                assert source.has(camera).tolist() == [row[column] for row in rows]
        assert source.test is not None
        assert source.test.tolist() == [row[4] for row in rows]
        normal = [unicodedata.normalize("NFC", row[3]) for row in rows]
        assert source.groups == tuple(normal)
        unlabelled = {"", "_", "-1", "unlabelled", "unlabeled"}
        labels = [unicodedata.normalize("NFC", row[2]) for row in rows]
        assert [label is None for label in source.labels] == [label.casefold() in unlabelled for label in labels]
