"""The ten trials, and the labelled five per cent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.washington import Facts
from pipeline.datasets.washington_index import Index, index_names
from pipeline.datasets.washington_splits import (
    _ticket,
    find_trials,
    format_trials,
    labelled_ids,
    read_trials,
    split_frames,
    trials_of,
)
from pipeline.runtime.errors import DataError, UsageError
from tests.support.washington import names_of, write_frame


def test_trials_are_written_as_they_are_read(tmp_path: Path, facts: Facts) -> None:
    path = tmp_path / "testinstance_ids.txt"
    path.write_text(format_trials(facts.trials))
    assert read_trials(path) == facts.trials


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no trial"),
        ("apple_1\n", "line 1: 'apple_1' is not one object of a trial"),
        ("****** trial 1 ******\napple\n", "line 2"),
        ("****** trial 1 ******\napple_x\n", "line 2"),
        ("****** trial 1 ******\napple_1\napple_2\n", "line 3"),
        ("****** trial 2 ******\napple_1\n", "trial 2 where 1 should follow"),
    ],
)
def test_a_trials_file_that_is_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "testinstance_ids.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        read_trials(path)


def test_a_missing_trials_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"testinstance_ids\.txt: cannot be read"):
        read_trials(tmp_path / "testinstance_ids.txt")


def test_the_data_sets_own_trials_come_before_the_official_ones(tmp_path: Path, facts: Facts) -> None:
    write_frame(tmp_path)
    assert find_trials(tmp_path) is None
    assert trials_of(tmp_path) == facts.trials
    (tmp_path / "testinstance_ids.txt").write_text(format_trials([{"apple": 1}]))
    assert trials_of(tmp_path) == [{"apple": 1}]
    (tmp_path / "rgbd-dataset" / "testinstance_ids.txt").write_text(format_trials([{"apple": 2}]))
    assert trials_of(tmp_path) == [{"apple": 2}]


@pytest.mark.parametrize("split", [-1, 10, 99])
def test_a_split_outside_the_ten_is_refused(official: Index, facts: Facts, split: int) -> None:
    with pytest.raises(UsageError, match=rf"there is no split {split}: they are 0\.\.9"):
        split_frames(official, facts.trials, split)


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        ({"cup": 1}, "names no left-out object of jug"),
        ({"cup": 3, "jug": 1}, "leaves out objects that the data lacks: cup_3"),
        ({"cup": 1, "jug": 7}, "leaves nothing to train on of jug"),
    ],
)
def test_a_trial_that_does_not_fit_the_data_is_refused(trial: dict[str, int], reason: str) -> None:
    samples = ["cup_1_1_1", "cup_2_1_1", "jug_1_1_1" if trial.get("jug") == 1 else "jug_7_1_1"]
    index = index_names(name for sample in samples for name in names_of(sample))
    with pytest.raises(DataError, match=f"trial 1 {reason}"):
        split_frames(index, [trial], 0)


def test_the_labelled_five_per_cent(official: Index, facts: Facts) -> None:
    drawn = [labelled_ids(split_frames(official, facts.trials, k), seed=3) for k in range(10)]
    for k, ids in enumerate(drawn):
        parts = split_frames(official, facts.trials, k)
        train = [frame.id for frame in parts.train]
        chosen = set(ids)
        assert len(ids) == len(chosen)
        assert abs(len(ids) - 0.05 * len(train)) <= 0.5
        assert list(ids) == [name for name in train if name in chosen]
    assert len(set(drawn)) == 10
    first = split_frames(official, facts.trials, 0)
    assert labelled_ids(first, seed=3) == drawn[0] != labelled_ids(first)
    # The draw is tied to ids, not to positions: the frames' order does not matter.
    shuffled = type(first)(first.number, first.train[::-1], first.test)
    assert sorted(labelled_ids(shuffled, seed=3)) == sorted(drawn[0])


def test_the_labelled_draw_is_uniform() -> None:
    index = index_names(name for k in range(40) for name in names_of(f"cup_{1 + k % 2}_1_{1 + 5 * k}"))
    parts = split_frames(index, [{"cup": 1}], 0)
    counts = dict.fromkeys((frame.id for frame in parts.train), 0)
    for seed in range(1000):
        for name in labelled_ids(parts, 0.25, seed=seed):
            counts[name] += 1
    # 20 ids, 5 a draw: 250 each, standard deviation 13.7.
    assert len(counts) == 20
    assert max(abs(count - 250) for count in counts.values()) < 5 * 13.7


@given(st.floats(0.001, 1))
def test_at_least_one_and_at_most_all_are_labelled(fraction: float) -> None:
    index = index_names(name for k in (1, 2) for f in range(30) for name in names_of(f"cup_{k}_1_{1 + 5 * f}"))
    parts = split_frames(index, [{"cup": 2}], 0)
    ids = labelled_ids(parts, fraction)
    assert 1 <= len(ids) <= 30
    assert abs(len(ids) - 30 * fraction) <= max(0.5, 1 - 30 * fraction)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    index = index_names(names_of("cup_1_1_1") + names_of("cup_2_1_1"))
    with pytest.raises(UsageError, match="labelled fraction"):
        labelled_ids(split_frames(index, [{"cup": 1}], 0), fraction)


@given(st.integers(2, 12), st.floats(0.01, 0.5), st.integers(0, 50))
def test_no_category_is_left_without_a_label(categories: int, fraction: float, seed: int) -> None:
    samples = [f"c{chr(97 + c)}_{o}_1_{1 + 5 * f}" for c in range(categories) for o in (1, 2) for f in range(8)]
    index = index_names(name for sample in samples for name in names_of(sample))
    parts = split_frames(index, [dict.fromkeys(index.categories, 1)], 0)
    chosen = set(labelled_ids(parts, fraction, seed=seed))
    assert {frame.category for frame in parts.train if frame.id in chosen} == set(index.categories)
    count = max(1, int(fraction * len(parts.train) + 0.5))
    assert len(chosen) == max(count, categories)
    tickets = sorted((frame.id for frame in parts.train), key=lambda name: _ticket(name, 0, seed))
    uniform = set(tickets[:count])
    if {frame.category for frame in parts.train if frame.id in uniform} == set(index.categories):
        assert chosen == uniform  # where it works, the draw is the paper's
    else:
        assert len(uniform - chosen) <= categories - 1
