"""The report: what it finds, what it says, and that nothing in it is taken for markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.runtime.errors import DataError
from tests.support.finished_runs import finished
from trainer.reporting.comparison import Block, Cell, ExperimentResult, Measured, Printed, Row, write_result
from trainer.reporting.comparison_tables import markdown as written_alone
from trainer.reporting.page import Page, compose, read, summarise
from trainer.reporting.render import as_json, html, markdown, pivot, replicas, signed
from trainer.reporting.run_tables import table
from trainer.settings.describe import description
from trainer.settings.recommended import terms

CPU = torch.device("cpu")
NASTY = '<script>alert("x")</script> & | `y`'


def cell(ours: float | None, paper: float | None, **options: Any) -> Cell:
    values = () if ours is None else (ours - 1, ours, ours + 1)
    return Cell(
        measured=None if ours is None else Measured(mean=ours, std=1.0, values=values, runs=("a", "b", "c")),
        printed=None if paper is None else Printed(mean=paper, **options),
    )


def outcome(*rows: Row, columns: tuple[str, ...] = ("x", "w"), **changes: Any) -> ExperimentResult:
    block = Block(title="hm-mnist", columns=columns, rows=rows)
    return ExperimentResult(name="table4", title="Table 4", blocks=(block,), **changes)


ROWS = (
    Row(name="SS-MVAE", cells=(cell(77.31, 76.81), cell(66.3, 67.02))),
    Row(name="CT+SVM", cells=(cell(None, 78.7, quoted=True, std=1.5), cell(75.4, 75.4))),
    Row(name="best", ours=True, cells=(cell(93, None), Cell(note="one modality"))),
)


class Text(HTMLParser):
    """The tags of a page, and the text of its tables' cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self._inside = False
        self.feed(page)
        self.cells = [" ".join(cell.split()) for cell in self.cells]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("href", "src")]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag in ("td", "th"):
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def page_of(tmp_path: Path, *outcomes: ExperimentResult) -> Page:
    return compose([(tmp_path / f"{result.name}.json", result) for result in outcomes], [], CPU)


def test_a_cell_says_ours_the_papers_and_the_difference_by_more_than_colour(tmp_path: Path) -> None:
    cells = Text(html(page_of(tmp_path, outcome(*ROWS)))).cells
    assert cells == [
        "system", "x", "w",
        "SS-MVAE", "ours 77.31 ± 2.48 paper 76.81 ▲ +0.50 points relative to the paper",
        "ours 66.30 ± 2.48 paper 67.02 ▼ −0.72 points relative to the paper",
        "CT+SVM", "not trained paper 78.70 ± 1.50 †",
        "ours 75.40 ± 2.48 paper 75.40 = 0.00 points relative to the paper",
        "best * not in the paper", "ours 93.00 ± 2.48", "one modality",
    ]  # fmt: skip


def test_the_summary_counts_what_both_have(tmp_path: Path) -> None:
    summary = summarise([(tmp_path, outcome(*ROWS))])
    assert summary is not None
    assert (summary.compared, summary.reached) == (3, 2)
    assert summary.mean == pytest.approx((0.5 - 0.72 + 0) / 3)
    assert summary.worst is not None
    assert summary.worst[0] == pytest.approx(-0.72)
    assert summary.worst[1] == "table4, hm-mnist, SS-MVAE, w"
    assert summarise([(tmp_path, outcome(ROWS[2]))]) is None


def test_reduced_runs_are_said_to_be_so_in_every_form(tmp_path: Path) -> None:
    page = page_of(tmp_path, outcome(*ROWS, reduced=("20 epochs instead of 500",)))
    for form in (html(page), markdown(page), as_json(page)):
        assert "20 epochs instead of 500" in form
    assert "Reduced" not in html(page_of(tmp_path, outcome(*ROWS)))


def test_other_data_than_the_papers_are_not_compared_with_its_numbers(tmp_path: Path) -> None:
    other = outcome(*ROWS, comparable=False)
    page = page_of(tmp_path, other)
    assert page.summary is None
    assert Text(html(page)).cells[4] == "ours 77.31 ± 2.48 paper 76.81"
    for form in (html(page), markdown(page)):
        assert "not for comparison" in form
        assert "+0.50" not in form


def test_what_the_paper_prints_no_number_of_is_shown_as_ours_alone(tmp_path: Path) -> None:
    figure = outcome(Row(name="SS-MVAE", cells=(cell(77.31, None), cell(66.3, None))), comparable=False)
    written = written_alone(figure)
    assert "| SS-MVAE | 77.31 ± 2.48 (3) | 66.30 ± 2.48 (3) |" in written
    assert "paper /" not in written
    assert "not for comparison" not in html(page_of(tmp_path, figure))


@pytest.mark.parametrize(
    ("difference", "text"), [(0.314, "+0.31"), (-1.2, "−1.20"), (0.001, "0.00"), (-0.004, "0.00"), (0, "0.00")]
)
def test_signs(difference: float, text: str) -> None:
    assert signed(difference) == text


def test_nothing_is_taken_for_markup(tmp_path: Path) -> None:
    nasty = outcome(
        Row(name=NASTY, cells=(Cell(note=NASTY), cell(1, 2))), columns=(NASTY, "w"), notes=(NASTY,),
        reduced=(NASTY,), settings={NASTY: NASTY}, provenance={"command": NASTY},
    )  # fmt: skip
    run = finished(tmp_path, data=NASTY)
    page = compose([(tmp_path / "t.json", nasty)], [run], CPU, models=False)
    text = Text(html(page))
    assert "script" not in text.tags
    assert all(link.startswith(("#", "data:")) for link in text.links)  # and no network
    assert NASTY.replace("  ", " ") in text.cells
    assert json.loads(as_json(page))["outcomes"][0]["blocks"][0]["columns"][0] == NASTY
    lines = [line for line in markdown(page).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[:3]}) == 1  # its bar opens no column
    assert not any(re.search(r"(?<!\\)<script", line) for line in lines)


def test_runs_are_grouped_by_data_with_means_best_and_caveats(tmp_path: Path) -> None:
    shares = {"x": 0.5, "w": 0.4, "x+w": 0.9}
    runs = [
        finished(tmp_path, "sshmvae", seed=0, accuracies=[shares], completions=("zeros", "iterative")),
        finished(tmp_path, "sshmvae", seed=1, accuracies=[shares], completions=("zeros", "iterative")),
        finished(tmp_path, "sshmvae-kl", accuracies=[{**shares, "x": 0.6}], completions=("encoders",)),
        finished(tmp_path, "ssmvae", done=False, epochs=500),
        finished(tmp_path, "ssmvae", data="mine"),
    ]
    page = compose([], runs, CPU, models=False)
    (mnist, other) = page.data_sets
    assert (mnist.name, other.name) == ("hm-mnist", "mine")
    assert mnist.caveats == ("Reduced: 1 epoch instead of the paper's 500.",)
    assert "not the paper's" in other.caveats[0]
    assert "One run per setting" in other.caveats[1]
    assert mnist.unfinished == (f"{runs[3].folder.name}: 1 of 500 epochs",)
    given, rows = pivot(table(runs[:3]))
    assert given == ["x", "w", "x+w"]
    assert [(setting, completion, count) for setting, completion, count, _ in rows] == [
        ("sshmvae", "zeros", 2), ("sshmvae", "iterative sampling", 2), ("sshmvae-kl, beta 1", "encoders", 1)
    ]  # fmt: skip
    assert [[round(row.accuracy, 6) for row in line] for *_, line in rows] == [[50, 40, 90], [40, 30, 90], [60, 40, 90]]
    text = html(page)
    assert "1 of 500 epochs" in text
    assert text.count('class="best"') == 1 + 2 + 3  # x of one row; w of two; x+w of three
    assert all(image["alt"] for image in Text(text).images)
    assert [picture.title for picture in mnist.pictures] == ["Training on hm-mnist"]


def test_differences_between_settings_are_in_every_form(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path, model, seed=seed, accuracies=[{"x": share + gain, "w": share, "x+w": 0.9}], completions=how)
        for model, gain, how in (("sshmvae", 0.0, ("zeros", "iterative")), ("sshmvae-kl", 0.25, ("encoders",)))
        for seed, share in enumerate((0.5, 0.4))
    ]
    page = compose([], runs, CPU, models=False)
    cells = Text(html(page)).cells
    first = cells.index("difference")
    assert cells[first + 2 : first + 7] == ["SS-HMVAE-kl, beta 1", "x", "encoders against iterative sampling", "+35.00 ± 0.00", "2"]  # fmt: skip  # noqa: E501
    assert "| SS-HMVAE-kl, beta 1 | x | encoders against iterative sampling | +35.00 ± 0.00 | 2 |" in markdown(page)
    (tabulated,) = json.loads(as_json(page))["tables"]
    assert tabulated["data"] == "hm-mnist"
    assert tabulated["rows"][0]["accuracy_ci95"] == pytest.approx(12.7062 * 5, rel=1e-5)  # t(0.975, 1) s / sqrt(2)
    assert [row["given"] for row in tabulated["differences"]] == ["x", "w", "x+w"]
    meaning = "half-width of the 95 % confidence interval (Student's t) over 2"
    for form in (html(page).replace("&#39;", "'"), markdown(page), tabulated["plus_minus"]):
        assert meaning in form
        assert "standard deviation" not in form
    assert "difference" not in Text(html(compose([], runs[:2], CPU, models=False))).cells


def test_an_interval_is_written_and_read_again_and_old_results_have_one_too() -> None:
    measured = Measured(mean=2, std=1, values=(1, 2, 3), runs=("a", "b", "c"))
    written = measured.model_dump(mode="json")
    assert written["ci95"] == pytest.approx(4.302653 / 3**0.5)
    assert Measured.model_validate(written) == Measured.model_validate_json(json.dumps(written)) == measured
    del written["ci95"]  # as files were written before
    assert Measured.model_validate(written).ci95 == measured.ci95
    assert Measured(mean=1, std=None, values=(1,), runs=("a",)).ci95 is None


def test_scores_on_a_validation_part_are_not_called_test_results(tmp_path: Path) -> None:
    page = compose([], [finished(tmp_path, data="hm-mnist-validation")], CPU, models=False)
    (data_set,) = page.data_sets
    for form in (html(page), markdown(page)):
        assert "validation accuracy (%)" in form
        assert "test accuracy (%)" not in form
    assert "not test results" in data_set.caveats[0]
    assert "not the paper's data" in data_set.caveats[1]


def test_pictures_that_the_runs_call_for(tmp_path: Path) -> None:
    runs = [finished(tmp_path, alpha=alpha, split=split, labels=labels) for alpha, split, labels in ((1, 0, 100), (2, 1, 100), (1, 1, 300))]  # fmt: skip  # noqa: E501
    (data_set,) = compose([], runs, CPU, models=False).data_sets
    assert [picture.title for picture in data_set.pictures[1:]] == [
        "The classifier's weight alpha", "Accuracy against labels", "Accuracy per split"
    ]  # fmt: skip
    assert all(picture.uri.startswith("data:image/svg+xml;base64,") for picture in data_set.pictures)


def test_a_missing_shard_is_said_on_the_page(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (data_set,) = compose([], [run], CPU).data_sets
    assert data_set.closer == ()
    assert "absent.h5" in data_set.missing[0]


def test_outcomes_and_runs_are_found_below_a_folder_tables_first(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs")
    (tmp_path / "figure4.svg").write_text("<svg/>")
    for name in ("table10", "table2"):
        write_result(tmp_path / f"{name}.json", ExperimentResult(name=name, title=name))
    drawn = outcome(*ROWS).model_copy(update={"name": "figure4", "figure": "figure4.svg"})  # with numbers of its own
    write_result(tmp_path / "figure4.json", drawn)
    (tmp_path / "other.json").write_text("[1]")
    contents = read([tmp_path, run.folder])
    outcomes, runs = contents.results, list(contents.runs)
    assert [result.name for _, result in outcomes] == ["table2", "table10", "figure4"]
    assert [listed.folder for listed in runs] == [run.folder]
    (shown,) = (result for result in compose(outcomes, [], CPU).results if result.picture)
    assert shown.picture is not None
    assert shown.picture.uri == "data:image/svg+xml;base64,PHN2Zy8+"


def test_what_cannot_be_reported_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        read([tmp_path / "absent"])
    with pytest.raises(DataError, match="neither a run nor a result"):
        read([tmp_path])
    (tmp_path / "table1.json").write_text('{"name": "table1", "title": "t", "blocks": 3}')
    with pytest.raises(DataError, match="not an experiment result"):
        read([tmp_path])
    for figure in ("absent.svg", "../table1.svg", "table1.json"):
        with pytest.raises(DataError, match="picture"):
            page_of(tmp_path, ExperimentResult(name="f", title="f", figure=figure))
    short = Row(name="short", cells=(cell(1, 1),))
    with pytest.raises(DataError, match="do not fit"):
        page_of(tmp_path, outcome(short))


def test_how_many_runs_a_block_is_over() -> None:
    (block,) = outcome(*ROWS).blocks
    assert replicas(block) == "3 runs"
    single = Cell(measured=Measured(mean=1, std=None, values=(1.0,), runs=("a",)))
    row = Row(name="one", cells=(single, ROWS[0].cells[0]))
    assert replicas(Block(title="", columns=("x", "w"), rows=(row,))) == "1 to 3 runs"
    assert replicas(Block(title="", columns=(), rows=())) == ""


def test_what_goes_beyond_the_paper_has_a_short_name_where_it_is_the_preset(tmp_path: Path) -> None:
    preset = terms("sshmvae-kl", 2)
    runs = [
        finished(tmp_path, "sshmvae-kl", **settings)
        for settings in (preset, preset | {"onset": 0.75}, preset | {"smoothness": 0.0}, {"information": 2.5}, {})
    ]
    assert [description(run.settings)[5:] for run in runs] == [
        ["recommended"],
        ["recommended", "onset 0.75"],
        [
            "beta 1",
            "propagation 10",
            "mean_alpha 50",
            "partial_alpha 50",
            "partial_smoothness 10",
            "agreement 50",
            "onset 0.6",
            "averaging 0.99",
            "schedule cosine",
        ],
        ["information 2.5"],
        [],
    ]
