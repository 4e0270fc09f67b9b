"""The test part: stratified, seeded, and never through a group; and labels that are too few."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.errors import DataError, UsageError
from pipeline.sources.parts import divide
from pipeline.sources.rows import Source


def source_of(
    labels: Sequence[str | None], groups: Sequence[str] | None = None, test: Sequence[bool] | None = None
) -> Source:
    count = len(labels)
    return Source(
        path=Path("mine.npz"),
        base=Path(),
        ids=tuple(map(str, range(count))),
        vectors={"x": np.zeros((count, 2), np.float32)},
        labels=tuple(labels),
        labels_from="label",
        groups=None if groups is None else tuple(groups),
        test=None if test is None else np.array(test),
    )


def test_classes_are_ordered_as_people_would() -> None:
    assert divide(source_of(["10", "9", None, "-1", "9"]), None, 0).classes == ("-1", "9", "10")
    labelling = divide(source_of(["b", "a", None, "c10", "c9"]), None, 0)
    assert labelling.classes == ("a", "b", "c10", "c9")
    assert labelling.labels.tolist() == [1, 0, -1, 2, 3]
    assert not labelling.test.any()
    assert labelling.rule == "no test part"


def test_classes_may_be_named_before_they_have_labels() -> None:
    labelling = divide(source_of([None, "b", None]), None, 0, named=["cup", "b", "a"])
    assert labelling.classes == ("cup", "b", "a")
    assert labelling.labels.tolist() == [-1, 1, -1]
    assert divide(source_of([None, None]), None, 0, named=["cup", "bowl"]).labels.tolist() == [-1, -1]
    with pytest.raises(DataError, match="a row has the label 'hat', which --class does not name") as raised:
        divide(source_of(["hat", None]), None, 0, named=["cup", "bowl"])
    assert raised.value.hint == "add --class hat, or correct the label"
    with pytest.raises(DataError, match="no labelled training row is of the class cup"):
        divide(source_of(["cup", None], None, [True, False]), None, 0, named=["cup", "bowl"])


@pytest.mark.parametrize("named", [["cup"], ["cup", "cup"], ["cup", ""], ["cup", " bowl"]])
def test_names_that_are_no_classes(named: list[str]) -> None:
    with pytest.raises(UsageError, match="--class"):
        divide(source_of([None, None]), None, 0, named=named)


@given(
    st.lists(st.integers(2, 30), min_size=2, max_size=5),
    st.integers(0, 30),
    st.sampled_from([0.1, 0.2, 0.34, 0.5]),
    st.integers(0, 5),
)
def test_without_groups_it_is_stratified(counts: list[int], unlabelled: int, share: float, seed: int) -> None:
    labels = [f"c{k}" for k, count in enumerate(counts) for _ in range(count)] + [None] * unlabelled
    total = sum(counts)
    size = round(share * total)
    source = source_of(labels)
    if not len(counts) <= size <= total - len(counts):
        with pytest.raises(DataError, match=r"--test .* cannot be divided so that each of . classes is in both parts"):
            divide(source, share, seed)
        return
    labelling = divide(source, share, seed)
    assert labelling.test.sum() == size
    assert (labelling.labels[labelling.test] >= 0).all()
    for k, count in enumerate(counts):
        tested = int((labelling.labels[labelling.test] == k).sum())
        assert count > tested
        assert abs(tested - share * count) <= 2
    np.testing.assert_array_equal(labelling.test, divide(source, share, seed).test)


@given(
    st.lists(st.lists(st.integers(-1, 3), min_size=1, max_size=6), min_size=8, max_size=24),
    st.sampled_from([0.1, 0.2, 0.3]),
    st.integers(0, 3),
)
def test_groups_stay_whole_and_every_class_keeps_rows_to_train_on(
    groups: list[list[int]], share: float, seed: int
) -> None:
    groups = [*groups, [0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]]
    labels = [None if label < 0 else f"c{label}" for group in groups for label in group]
    names = [f"g{number}" for number, group in enumerate(groups) for _ in group]
    labelling = divide(source_of(labels, names), share, seed)
    test = labelling.test
    assert test.any()
    assert not set(np.array(names)[test]) & set(np.array(names)[~test])
    assert (np.bincount(labelling.labels[~test & (labelling.labels >= 0)], minlength=4) > 0).all()
    np.testing.assert_array_equal(test, divide(source_of(labels, names), share, seed).test)


def test_with_many_groups_the_shares_are_near() -> None:
    rng = np.random.default_rng(0)
    names = np.repeat([f"g{k}" for k in range(100)], 5)
    labels = [f"c{k}" for k in np.repeat(rng.integers(0, 4, 100), 5)]
    labelling = divide(source_of(labels, names.tolist()), 0.2, 0)
    shares = np.bincount(labelling.labels[labelling.test]) / np.bincount(labelling.labels)
    assert (np.abs(shares - 0.2) < 0.06).all(), shares


def test_rows_of_no_group_are_groups_of_their_own() -> None:
    labels = ["a", "b"] * 20
    labelling = divide(source_of(labels, ["g"] * 20 + [""] * 20), 0.25, 0)
    assert len(set(labelling.test[:20].tolist())) == 1
    assert 0 < labelling.test.sum() < 40


def test_a_class_of_one_group_or_one_row_is_not_tested(caplog: pytest.LogCaptureFixture) -> None:
    labels = ["rare"] * 3 + ["a", "b"] * 20
    groups = ["r"] * 3 + [f"g{k // 2}" for k in range(40)]
    labelling = divide(source_of(labels, groups), 0.2, 0)
    assert not labelling.test[:3].any()
    assert "one group only: rare" in caplog.text
    labelling = divide(source_of(["rare", *["a", "b"] * 20]), 0.2, 0)
    assert not labelling.test[0]
    assert "one labelled row only: rare" in caplog.text


@pytest.mark.parametrize(
    ("source", "share", "words"),
    [
        (source_of([None, None]), None, "no row has a label"),
        (source_of(["a", "a", None]), None, "all labels are 'a', but a classifier needs two classes"),
        (source_of(["a", "b\n"]), None, "is not text, or is blank at its ends"),
        (source_of(["a", "b", "a", "b"], ["g", "h", "g", "h"]), 0.5, "its groups cannot be divided"),
        (source_of(["a", "b", "a"], ["g", "h", "g"], [False, False, True]), None, "the group 'g' has rows in both"),
        (source_of(["a", "b", "a"], None, [False, True, False]), None, "no labelled training row is of the class b"),
        (source_of(["a", "b", None], None, [False, False, True]), None, "no row of the test part has a label"),
        (source_of(["a", "b"], None, [True, True]), None, "no labelled training row is of the class a, b"),
        (source_of(["a", "b"] * 9), 0.01, "cannot be divided"),
    ],
)
def test_labels_that_are_too_few(source: Source, share: float | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        divide(source, share, 0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 20.0])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(UsageError, match="lies between 0 and 1"):
        divide(source_of(["a", "b"] * 9), share, 0)


def test_a_share_of_data_that_is_divided_already() -> None:
    with pytest.raises(UsageError, match="has a column split, which says it already"):
        divide(source_of(["a", "b"], None, [True, False]), 0.2, 0)
