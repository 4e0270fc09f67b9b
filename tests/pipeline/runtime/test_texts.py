"""Text files in the encodings that people have, or named as what they are."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.errors import DataError
from pipeline.runtime.texts import decoded, read_text

PATH = Path("mine.toml")
WITH_MARK = ("utf-8-sig", "utf-16", "utf-32")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1, max_size=40)


@given(TEXTS, st.sampled_from((*WITH_MARK, "utf-8")))
def test_what_is_written_with_a_mark_or_as_utf_8_is_read(text: str, encoding: str) -> None:
    content = text.encode(encoding)
    if content.startswith((b"PK\x03\x04", b"%PDF")):
        return
    assert decoded(content, PATH) == text


@pytest.mark.parametrize("encoding", [*WITH_MARK, "utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_any_way(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(f"epochs = 3{end}data = 'Löffel'{end}".encode(encoding))
    assert read_text(path) == "epochs = 3\ndata = 'Löffel'\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = 1\nb = 'Löffel'\n".encode("latin-1"), "not UTF-8 text: the byte 0xF6 in line 2, which is 'ö' in Windows"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive or an Excel workbook, not a text file"),
        (gzip.compress(b"a,b\n", mtime=0), r"compressed \(gzip\), not a text file"),
        (b"\xff\xfea\x00b", "begins as UTF-16-LE text, but is cut short"),
        (b"a\0b = 3", "holds NUL bytes"),
    ],
)
def test_what_is_none_of_these_is_named(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"mine.toml: .*{words}") as caught:
        decoded(content, PATH)
    assert "\n" not in caught.value.message


def test_the_hint_is_a_command_that_mends_it() -> None:
    with pytest.raises(DataError) as caught:
        decoded(b"\xe9", PATH)
    assert caught.value.hint == "save it as UTF-8: iconv -f WINDOWS-1252 -t UTF-8 mine.toml > utf-8-mine.toml"
