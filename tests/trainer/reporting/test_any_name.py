"""Names from all of Unicode in figures and pages: shown as they are, without a storm of warnings."""

import logging
import warnings
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.reporting.fonts import fonts_with, lacking_letters
from trainer.reporting.panel_layout import row_or_grid, shortened, write_title
from trainer.reporting.plot_style import render, styled
from trainer.reporting.template_environment import template_environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NASTY = ["$x_1^$", "100 %", "_a_", "{}", "a\nb", "\x1b[2J", "\x00", "שלום", "<b>&amp;"]
NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), min_size=2, max_size=3)


@styled
def drawn(names: list[str]) -> "Figure":
    figure, (panel,) = row_or_grid(1)
    panel.plot([0, 1], [0, 1], label=names[0])
    panel.set_xticks(range(len(names)), [shortened(name) for name in names])
    write_title(panel, " ".join(names))
    panel.legend()
    return figure


@settings(max_examples=3)
@given(NAMES)
def test_any_name_is_drawn_without_a_warning(names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("svg", "png"):
            content = render(drawn(names), kind)
            if kind == "svg":
                ET.fromstring(content)  # it is ours


def test_nothing_in_a_name_is_read_as_a_formula() -> None:
    text = "".join(ET.fromstring(render(drawn(NASTY), "svg")).itertext())  # it is ours
    for shown in ("$x_1^$", "100 %", "_a_", "{}", r"a\nb", r"\x1b[2J", "<b>&amp;"):
        assert shown in text


def test_letters_that_no_font_has_are_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    render(drawn(["\U0001fbf0\U0001fbf1", "b"]), "png")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 1  # none if there is such a font
    assert all("no installed font has" in line for line in lines)


def test_other_warnings_follow_the_filters_in_force() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("error", message="Glyphs")
        with lacking_letters() as lacking:
            warnings.warn("unclosed <socket.socket fd=15>", ResourceWarning, stacklevel=1)
            warnings.warn("Glyph 55 (seven) missing from font(s) DejaVu Sans.", UserWarning, stacklevel=1)
            warnings.warn("Matplotlib currently does not support Tamil natively.", UserWarning, stacklevel=1)
            warnings.warn("something else", UserWarning, stacklevel=1)
            with pytest.raises(UserWarning, match="Glyphs"):
                warnings.warn("Glyphs are late", UserWarning, stacklevel=1)
    assert lacking == {"7"}
    assert [str(one.message) for one in shown] == ["something else"]


def test_another_font_is_found_for_a_letter_that_the_usual_one_lacks() -> None:
    lacking = "\U0001d49e"  # a script capital, which matplotlib's own STIX fonts have
    assert fonts_with(frozenset({lacking}))
    assert fonts_with(frozenset({"\U000e0fff"})) == ()


def test_a_page_escapes_names_and_keeps_their_direction_to_themselves() -> None:
    page = template_environment(escape=True).from_string("<p>{{ name }}</p>")
    assert page.render(name="<b>\x1b") == r"<p>&lt;b&gt;\x1b</p>"
    assert page.render(name="ספל") == "<p>\u2068ספל\u2069</p>"
    assert page.render(name="two\nlines") == "<p>two\nlines</p>"
