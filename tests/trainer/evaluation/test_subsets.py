"""The subsets of the modalities: how many there are, which are shown, what they are called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.subsets import every_modality, shown_among, shown_subsets, subset_title, subsets

MODALITIES = st.lists(st.text("abcdxyz", min_size=1, max_size=3), min_size=1, max_size=8, unique=True)


def test_subsets_come_in_the_modalities_order() -> None:
    assert subsets(["x", "w", "v"]) == [
        ("x",), ("w",), ("v",), ("x", "w"), ("x", "v"), ("w", "v"), ("x", "w", "v"),
    ]  # fmt: skip
    assert subsets(["b"]) == [("b",)]


@given(MODALITIES)
def test_each_alone_all_but_one_and_all_are_shown(modalities: list[str]) -> None:
    shown = shown_subsets(modalities)
    total = len(modalities)
    assert shown == [subset for subset in subsets(modalities) if len(subset) in (1, total - 1, total)]
    assert len(shown) == (2 * total + 1 if total > 2 else 2**total - 1)
    assert (shown == subsets(modalities)) == (total <= 3)


@given(MODALITIES)
def test_what_was_measured_tells_which_are_shown_and_titles_tell_them_apart(modalities: list[str]) -> None:
    measured = ["+".join(subset) for subset in subsets(modalities)]
    shown = shown_among(measured)
    assert shown == ["+".join(subset) for subset in shown_subsets(modalities)]
    every = every_modality(shown)
    assert every == "+".join(modalities)
    titles = [subset_title(subset, every) for subset in shown]
    assert len(set(titles)) == len(titles)
    assert titles == shown or len(modalities) > 3


@pytest.mark.parametrize(
    ("subset", "every", "title"),
    [
        ("x", "x+w+v+u", "x"),
        ("w+v+u", "x+w+v+u", "all but x"),
        ("x+w+v+u", "x+w+v+u", "all 4"),
        ("x+w", "x+w+v+u", "x+w"),
        ("x+w+t", "x+w+v+u", "x+w+t"),  # of another model
        ("x+w", "x+w+v", "x+w"),
        ("x+w+v", "x+w+v", "x+w+v"),
        ("x+w+v+u", "", "x+w+v+u"),
    ],
)
def test_titles(subset: str, every: str, title: str) -> None:
    assert subset_title(subset, every) == title


def test_without_scores_nothing_is_shown() -> None:
    assert shown_among([]) == []
    assert every_modality([]) == ""


def test_models_of_different_modalities_have_no_subset_in_common_that_is_all() -> None:
    assert every_modality(["x", "x+w", "x+v"]) == ""
    assert every_modality(["x", "x+w", "x+w+v"]) == "x+w+v"
