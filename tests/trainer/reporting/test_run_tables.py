"""Tables of runs: means with intervals, and which settings are compared with which."""

from pathlib import Path

import pytest
from scipy import stats

from tests.support.finished_runs import finished
from trainer.evaluation.subsets import subsets
from trainer.reporting.run_tables import table
from trainer.training.run_folder import Run


def test_the_interval_is_students_over_replicas(tmp_path: Path) -> None:
    shares = (0.90, 0.93, 0.91)
    runs = [finished(tmp_path, seed=seed, accuracies=[{"x+w": share}]) for seed, share in enumerate(shares)]
    (row,) = table(runs).rows
    low, high = stats.t.interval(0.95, 2, loc=91.3333333, scale=stats.sem([100 * share for share in shares]))
    assert row.accuracy == pytest.approx(91.3333333)
    assert row.accuracy_ci95 == pytest.approx((high - low) / 2)
    assert row.replicas == 3
    assert table(runs).plus_minus.endswith("over 3 replicas (seeds)")
    alone = table(runs[:1])
    assert alone.rows[0].accuracy_ci95 is None
    assert (alone.plus_minus, alone.differences, alone.differences_title) == ("", (), "")


def test_splits_are_said_to_overlap(tmp_path: Path) -> None:
    runs = [finished(tmp_path, split=split, alpha=alpha) for split in range(3) for alpha in (1.0, 2.0)]
    found = table(runs)
    assert found.plus_minus.endswith("(splits); splits share training data, so the interval is approximate")
    assert "paired over 3 shared replicas; ± as above" in found.differences_title
    both = table([*runs, finished(tmp_path, split=0, seed=1)])
    assert "(seeds and splits)" in both.plus_minus
    assert "over 3 to 4 replicas" in both.plus_minus


def test_settings_are_paired_over_the_seeds_they_share(tmp_path: Path) -> None:
    def run(alpha: float, seed: int, x: float) -> Run:
        return finished(tmp_path, alpha=alpha, seed=seed, accuracies=[{"x": x, "w": 0.5, "x+w": 0.9}])

    runs = [run(1, 0, 0.5), run(1, 1, 0.6), run(1, 2, 0.1), run(5, 1, 0.63), run(5, 0, 0.51), run(7, 0, 0.4)]
    found = table(runs)
    assert [(row.setting, row.reference, row.given, row.pairs) for row in found.differences] == [
        ("alpha 5", "", "x", 2), ("alpha 5", "", "w", 2), ("alpha 5", "", "x+w", 2)
    ]  # fmt: skip
    first = found.differences[0]
    assert first.mean == pytest.approx(2)  # of 1 and 3 points
    assert first.standard_error == pytest.approx(1)
    assert first.ci95 == pytest.approx(stats.t.ppf(0.975, 1))
    assert first.how == "zeros"


def test_only_all_modalities_and_single_ones_are_compared(tmp_path: Path) -> None:
    shares = {"x": 0.5, "w": 0.5, "v": 0.5, "x+w": 0.6, "x+v": 0.6, "w+v": 0.6, "x+w+v": 0.9}
    runs = [finished(tmp_path, alpha=alpha, seed=seed, accuracies=[shares]) for alpha in (1.0, 2.0) for seed in (0, 1)]
    assert [row.given for row in table(runs).differences] == ["x", "w", "v", "x+w+v"]
    fewer = [
        finished(tmp_path, modalities=("x", "w"), seed=seed, accuracies=[{"x": 0.5, "w": 0.5, "x+w": 0.6}])
        for seed in (0, 1)
    ]
    given = [row.given for row in table([*runs[:2], *fewer]).differences]
    assert given == ["x", "w"]  # all modalities of one are not all of the other


def test_equal_completions_are_compared_and_otherwise_the_last_ones(tmp_path: Path) -> None:
    def runs(model: str, alpha: float, completions: tuple[str, ...]) -> list[Run]:
        return [finished(tmp_path, model, alpha=alpha, seed=seed, completions=completions) for seed in (0, 1)]

    found = table(
        [
            *runs("sshmvae", 1, ("zeros", "iterative")),
            *runs("sshmvae", 2, ("zeros", "iterative")),
            *runs("sshmvae-kl", 1, ("encoders",)),
        ]
    )
    assert [(row.given, row.how) for row in found.differences] == [
        ("x", "zeros"), ("x", "iterative sampling"), ("w", "zeros"), ("w", "iterative sampling"), ("x+w", "all given"),
        ("x", "encoders against iterative sampling"), ("w", "encoders against iterative sampling"),
        ("x+w", "all given"),
    ]  # fmt: skip
    assert {row.reference for row in found.differences} == {"sshmvae"}


def shares(modalities: str) -> dict[str, float]:
    """An accuracy for every subset, rising with the number of its modalities and, a little, with its place."""
    return {
        "+".join(subset): len(subset) / 10 + place / 1000
        for place, subset in enumerate(subsets(modalities))
    }  # fmt: skip


def test_of_many_modalities_a_few_subsets_are_shown_and_the_others_summed_up(tmp_path: Path) -> None:
    found = table([finished(tmp_path, data="mine", accuracies=[shares("abcdef")])])
    assert len(found.rows) == 63
    assert [found.title(row.given) for row in found.shown] == [
        "a", "b", "c", "d", "e", "f",
        "all but f", "all but e", "all but d", "all but c", "all but b", "all but a", "all 6",
    ]  # fmt: skip
    assert found.given == tuple(row.given for row in found.shown)
    assert found.hidden == 50
    summaries = found.summaries
    assert [(row.modalities, row.subsets) for row in summaries] == [(2, 15), (3, 20), (4, 15)]
    places = range(6, 21)  # of the pairs
    assert summaries[0].mean == pytest.approx(20 + sum(places) / 15 / 10)
    (lowest, low), (highest, high) = summaries[0].lowest, summaries[0].highest
    assert (lowest, highest) == ("a+b", "e+f")
    assert (low, high) == pytest.approx((20.6, 22))


def test_of_few_modalities_all_subsets_are_shown_under_their_own_names(tmp_path: Path) -> None:
    found = table([finished(tmp_path, data="mine", accuracies=[shares("abc")])])
    assert found.shown == found.rows
    assert [found.title(row.given) for row in found.shown] == list(shares("abc"))
    assert (found.hidden, found.summaries) == (0, ())


def test_a_subset_that_one_setting_shows_is_shown_of_all(tmp_path: Path) -> None:
    pair = finished(tmp_path, data="mine", modalities=("a", "b"), accuracies=[shares("ab")])
    found = table([finished(tmp_path, data="mine", accuracies=[shares("abcde")]), pair])
    assert [row.setting for row in found.shown if row.given == "a+b"] == list(
        dict.fromkeys(row.setting for row in found.rows)
    )
    assert found.hidden == 31 - 11 - 1
    assert found.title("a+b") == "a+b"
    assert found.title("a+b+c+d") == "all but e"


def test_all_but_one_is_said_only_where_it_is_clear_of_what(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path, data="mine", modalities=tuple(names), accuracies=[shares(names)])
        for names in ("abcd", "abce")
    ]
    found = table(runs)
    assert found.title("a+b+c") == "a+b+c"
    assert found.title("a+b+c+d") == "a+b+c+d"
