"""Text that people give, in each place where it is shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.text import file_name, isolated, markdown, visible

ANY = st.text(st.characters())  # all of Unicode, lone surrogates too


@given(ANY)
def test_nothing_acts_on_a_terminal_and_everything_can_be_written(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in shown)
    shown.encode()
    assert visible(shown) == shown
    assert shown == text or any(letter not in shown for letter in text)


@given(ANY)
def test_a_file_name_is_one_on_every_system(text: str) -> None:
    name = file_name(text.encode(errors="replace").decode())
    assert len(name.encode()) <= 200
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert not name.startswith(".")


def test_long_names_that_differ_at_their_ends_have_files_of_their_own() -> None:
    assert len({file_name("é" * 300 + end) for end in "ab"}) == 2
    assert file_name("rgbd-x-labels-100") == "rgbd-x-labels-100"
    assert file_name("../../a b") == "_.._a_b"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("cup", "cup"),
        ("a|b\nc", r"a\|b c"),
        ("$x_1$ & <b>", r"\$x\_1\$ \& \<b\>"),
        ("- one", r"\- one"),
        ("-0.5", "-0.5"),
        ("1. one", r"1\. one"),
        ("---", r"\---"),
        ("\x1b[2J", r"\\x1b\[2J"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, escaped: str) -> None:
    assert markdown(text) == escaped


def test_text_that_runs_right_to_left_keeps_its_direction_to_itself() -> None:
    assert isolated("cup") == "cup"
    assert isolated("ספל") == "\u2068ספל\u2069"
    assert isolated("a\u202eb") == r"a\u202eb"
