"""Which test images the demo shows: as its page says."""

import numpy as np

from commands.demo_examples import Chosen, JudgedSplit, first_of_each_class, where_covering_matters

CAMERAS = {"depth": "x", "RGB": "w"}


def judged(ids: list[str], **right: list[str]) -> JudgedSplit:
    """A string of + and - a model, a sign an image; `xw` for both cameras."""
    marks = {
        "+".join(given): np.array([[mark == "+" for mark in signs] for signs in by_model])
        for given, by_model in right.items()
    }
    return JudgedSplit(ids, np.zeros(len(ids), np.int64), marks)


def chosen(*splits: JudgedSplit, shown: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Sample and reason; the object of sample `cup_1_7` is `cup_1`."""
    objects = {sample: sample.rpartition("_")[0] for split in splits for sample in split.ids}
    examples = where_covering_matters(splits, "x+w", CAMERAS, objects, set(shown))
    return [(splits[example.split].ids[example.row], example.reason) for example in examples]


def test_the_first_image_of_each_class_in_the_order_of_classes() -> None:
    assert first_of_each_class(np.array([2, 2, 0, 1, 0, 1])) == [Chosen(0, 2), Chosen(0, 3), Chosen(0, 0)]


def test_for_each_camera_one_answer_lost_and_one_found() -> None:
    split = judged(
        ["a_1", "b_1", "c_1", "d_1", "e_1"],
        xw=["+++-+", "+++-+"],
        x=["--++-", "-++-+"],  # a: both lose it; b: one does; d: one finds it
        w=["++-++", "++++-"],  # c: one loses it, as does e; d: found again
    )
    assert chosen(split) == [
        ("b_1", "With the depth camera covered, one model loses the right answer while another keeps it."),
        ("d_1", "With the depth camera covered, a wrong answer turns right."),
        ("c_1", "With the RGB camera covered, one model loses the right answer while another keeps it."),
    ]  # d is shown already


def test_splits_are_searched_in_order_and_no_object_is_shown_twice() -> None:
    first = judged(["a_1", "a_2", "b_1"], xw=["+++", "+++"], x=["---", "+++"], w=["+++", "+++"])
    second = judged(["c_1", "a_3", "d_1"], xw=["+++", "+++"], x=["+++", "+++"], w=["---", "+++"])
    assert [sample for sample, _ in chosen(first, second)] == ["a_1", "c_1"]
    assert [sample for sample, _ in chosen(first, second, shown=("a", "c"))] == ["b_1", "d_1"]
    assert [sample for sample, _ in chosen(second, first, shown=("c", "d"))] == ["a_1"]


def test_nothing_is_chosen_where_nothing_changes() -> None:
    assert not chosen(judged(["a_1", "b_1"], xw=["+-", "+-"], x=["+-", "+-"], w=["+-", "+-"]))
