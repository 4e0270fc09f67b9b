"""The record of a comparison with rivals: its numbers, its sentences, its picture and its place in the report."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.runtime.errors import DataError
from trainer.reporting.page import compose, read
from trainer.reporting.render import as_json, html, markdown, points
from trainer.reporting.rival_comparison import (
    ComparedSystem,
    LeftOut,
    Level,
    MeasuredMean,
    PairedDifference,
    RivalComparison,
    gains,
    read_comparison,
    replicas_in_words,
    sentences,
    summary_of_gains,
    write_comparison,
)
from trainer.reporting.rival_figure import rival_figure

GIVEN = ("x", "w", "x+w")
Accuracies = dict[str, tuple[float, ...]]
OURS: Accuracies = {"x": (70, 72), "w": (60, 64), "x+w": (90, 92)}
SIMPLE: Accuracies = {"x": (71, 75), "w": (50, 55), "x+w": (80, 84)}
SPREAD: Accuracies = {"x": (69, 71), "w": (58, 60), "x+w": (88, 89)}


def system(
    name: str, title: str, accuracies: Accuracies, *, ours: bool = False, seconds: float = 0.1
) -> ComparedSystem:
    accuracy = {given: MeasuredMean.of(values) for given, values in accuracies.items()}
    return ComparedSystem(name=name, title=title, ours=ours, accuracy=accuracy, nll=0.5, ece=0.1, seconds=seconds)


def level(labels: int, rivals: dict[str, Accuracies], left_out: tuple[LeftOut, ...] = ()) -> Level:
    ours = system("m recommended", "M (recommended)", OURS, ours=True, seconds=20)
    others = [system(name, name.replace("-", " "), accuracies) for name, accuracies in rivals.items()]
    differences = [
        PairedDifference(
            rival=rival.name,
            ours=ours.name,
            given=given,
            difference=MeasuredMean.of(
                [a - b for a, b in zip(rival.accuracy[given].values, OURS[given], strict=True)]
            ),
        )
        for rival in others
        for given in GIVEN
    ]  # fmt: skip
    return Level(
        labels=labels, count=labels, systems=(ours, *others), differences=tuple(differences), left_out=left_out
    )


def comparison(*levels: Level) -> RivalComparison:
    compared = RivalComparison(
        data="hm-digits", given=GIVEN, replicas=((None, 0), (None, 1)), recommended=("m recommended",), levels=levels
    )
    return compared.model_copy(update={"sentences": sentences(compared)})


TWO_LEVELS = comparison(
    level(20, {"logistic-regression": SIMPLE, "label-spreading": SPREAD}),
    level(100, {"logistic-regression": SIMPLE}, (LeftOut(title="label spreading", reason="it would take long"),)),
)


def test_an_interval_is_students_over_the_replicas() -> None:
    values = (70.0, 74.0, 75.0, 79.0)
    measured = MeasuredMean.of(values)
    low, high = stats.t.interval(0.95, 3, loc=measured.mean, scale=stats.sem(values))
    assert measured.mean == 74.5
    assert measured.standard_error == pytest.approx(stats.sem(values))
    assert measured.half_width == pytest.approx((high - low) / 2)
    alone = MeasuredMean.of([70.0])
    assert (alone.mean, alone.standard_error, alone.half_width) == (70.0, None, None)


def test_a_sentence_says_where_a_rival_wins_by_how_much_and_what_was_left_out() -> None:
    half = MeasuredMean.of([1, 3]).half_width
    assert half == pytest.approx(12.706, abs=1e-3)  # t of one degree of freedom times a standard error of 1
    assert list(TWO_LEVELS.sentences) == [
        "With 20 labels, logistic regression is better on x alone: 73.0 against 71.0 (paired difference 2.0 ± 12.7, "
        "two seeds).",
        "With 100 labels, logistic regression is better on x alone: 73.0 against 71.0 (paired difference 2.0 ± 12.7, "
        "two seeds).",
        "label spreading was left out with 100 labels: it would take long.",
    ]
    assert comparison(level(20, {"label-spreading": SPREAD})).sentences == ("No rival wins anywhere.",)
    assert comparison(level(20, {})).sentences == ("No rival was compared.",)
    equal = comparison(level(20, {"label-spreading": OURS}))
    assert equal.sentences == ("No rival wins anywhere.",)


def test_replicas_are_seeds_splits_or_both() -> None:
    def words(*replicas: tuple[int | None, int]) -> str:
        return replicas_in_words(TWO_LEVELS.model_copy(update={"replicas": replicas}))

    assert words((None, 0)) == "one seed"
    assert words(*((None, seed) for seed in range(12))) == "12 seeds"
    assert words((0, 0), (1, 0)) == "two splits"
    assert words((0, 0), (0, 1), (1, 0), (1, 1)) == "four runs"


def test_gains_are_over_logistic_regression_and_over_the_best_rival_of_the_cell() -> None:
    first = gains(TWO_LEVELS)[:3]
    assert [gain.given for gain in first] == list(GIVEN)
    assert [gain.over_simple.mean for gain in first if gain.over_simple] == [-2, 9.5, 9]
    assert [gain.best.name for gain in first if gain.best] == ["logistic-regression", *["label-spreading"] * 2]
    assert [gain.over_best.mean for gain in first if gain.over_best] == [-2, 3, 2.5]
    (summary,) = summary_of_gains(TWO_LEVELS)
    assert summary == (
        "Over logistic regression, M (recommended) gains −2.0 to +9.5 points (most with 100 labels on w alone, least "
        "with 20 labels on x alone). It takes 20 s per run, logistic regression 0.1 s."
    )
    assert list(summary_of_gains(comparison(level(20, {"label-spreading": SPREAD})))) == []
    (without,) = {gain.best for gain in gains(comparison(level(20, {})))}
    assert without is None
    assert points(None) == "–"
    assert points(MeasuredMean.of([-2.0])) == "−2.0"


def test_a_file_is_read_back_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    with pytest.raises(DataError, match="there is no"):
        read_comparison(path)
    write_comparison(path, TWO_LEVELS)
    assert read_comparison(path) == TWO_LEVELS
    for place, key in ((("levels", 0, "systems", 1, "accuracy"), "w"), (("levels", 1, "systems"), 0), ((), "given")):
        whole = values = json.loads(TWO_LEVELS.model_dump_json())
        for step in place:
            values = values[step]
        values.pop(key)
        path.write_text(json.dumps(whole))
        with pytest.raises(DataError, match="is not a comparison"):
            read_comparison(path)


def test_the_picture_has_a_panel_for_each_column_and_a_line_for_each_system() -> None:
    figure = rival_figure(TWO_LEVELS)
    assert [panel.get_title() for panel in figure.axes] == ["given x", "given w", "given x+w"]
    for panel in figure.axes:
        assert panel.get_xscale() == "log"
        lines = {line.get_label(): line for line in panel.get_lines() if not str(line.get_label()).startswith("_")}
        assert set(lines) == {"M (recommended)", "logistic regression", "label spreading"}
        assert len({(line.get_color(), line.get_marker()) for line in lines.values()}) == 3
        assert np.asarray(lines["logistic regression"].get_xdata()).tolist() == [20, 100]
        assert len(panel.collections) >= 2  # the bands of those with two numbers of labels, and a bar
    assert rival_figure(comparison(level(20, {}))).axes


def test_the_report_has_a_section_in_all_its_forms(tmp_path: Path) -> None:
    write_comparison(tmp_path / "mine" / "comparison.json", TWO_LEVELS)
    (tmp_path / "mine" / "rivals").mkdir()
    (tmp_path / "mine" / "rivals" / "kept.json").write_text('{"kind": "scores of a rival"}')
    contents = read([tmp_path])
    assert read([tmp_path / "mine" / "comparison.json"]).comparisons == contents.comparisons
    assert (contents.results, contents.runs) == ((), ())
    page = compose(contents.results, contents.runs, torch.device("cpu"), comparisons=contents.comparisons)
    text = markdown(page)
    assert "What is gained over the usual classifiers on hm-digits" in text
    assert "With 20 labels, logistic regression is better on x alone: 73.0 against 71.0" in text
    assert (
        "| 20 labels | w (x missing) | M (recommended) | 62.0 | +9.5 ± 6.4 | label spreading | 59.0 | +3.0 ± 12.7 | "
        "20 / 0.1 / 0.1 |" in text
    )
    shown = html(page)
    assert shown.count("<img ") == 1
    assert "gain over logistic regression" in shown
    assert "+9.5 ± 6.4" in shown
    alone = compose([], [], torch.device("cpu"), comparisons=[(tmp_path, comparison(level(20, {})))])
    assert "| 20 labels | x+w | M (recommended) | 91.0 | – | – | – | – | 20 / – / – |" in markdown(alone)
    assert "No rival was compared." in html(alone)
    (saved,) = json.loads(as_json(page))["comparisons"]
    assert RivalComparison.model_validate(saved) == TWO_LEVELS


def test_files_kept_for_a_comparison_are_no_reason_for_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_comparison(tmp_path / "comparison.json", TWO_LEVELS)
    (tmp_path / "kept.json").write_text('{"kind": "scores of a rival"}')
    (tmp_path / "other.json").write_text('{"kind": "something"}')
    read([tmp_path])
    assert [record.getMessage() for record in caplog.records] == [
        f"left out {tmp_path / 'other.json'}: it is not an experiment result"
    ]


def test_many_modalities_have_short_names_in_every_form(tmp_path: Path) -> None:
    every = "fou+fac+kar+pix"
    given = (*every.split("+"), every)
    ours, rival = (
        system(name, name, dict.fromkeys(given, (share, share + 2)), ours=name == "m")
        for name, share in (("m", 70), ("logistic-regression", 60))
    )
    better = [
        PairedDifference(rival=rival.name, ours="m", given=column, difference=MeasuredMean.of((1, 3)))
        for column in given
    ]
    of_four = RivalComparison(
        data="four",
        given=given,
        replicas=((None, 0), (None, 1)),
        recommended=("m",),
        levels=(Level(labels=20, count=20, systems=(ours, rival), differences=tuple(better), left_out=()),),
    )
    said = sentences(of_four)
    assert "is better on fou alone:" in said[0]
    assert "is better on all 4 together:" in said[4]
    page = compose([], [], torch.device("cpu"), comparisons=[(tmp_path, of_four)])
    for form in (html(page), markdown(page)):
        assert "fou alone" in form
        assert "all 4" in form
        assert every not in form
    figure = rival_figure(of_four)
    assert [panel.get_title() for panel in figure.axes] == [
        "given fou", "given fac", "given kar", "given pix", "given all 4"
    ]  # fmt: skip
    assert len({round(panel.get_position().y0, 2) for panel in figure.axes}) == 2  # rows
