"""The figures: which numbers they draw, and what their files are."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.runtime.errors import DataError, UsageError
from tests.support.finished_runs import finished
from trainer.reporting.plot_style import COLOURS, announce, render
from trainer.reporting.plots import alpha_figure, curves_figure, figure4, figure6, labels_figure, splits_figure


def epochs(*shares: float) -> list[dict[str, float]]:
    return [{"x": share / 2, "w": share / 4, "x+w": share} for share in shares]


def lines(figure: Figure) -> dict[str, dict[str, list[float]]]:
    """By panel and label, the heights of each line's points."""
    by_panel: dict[str, dict[str, list[float]]] = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        heights = [np.asarray(getattr(handle, "lines", [handle])[0].get_ydata()) for handle in handles]
        by_panel[panel.get_title()] = {
            str(k): list(map(float, points)) for k, points in zip(labels, heights, strict=True)
        }
    return by_panel


def test_curves_are_means_over_seeds_in_a_panel_for_each_subset(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path, seed=0, accuracies=epochs(0.4, 0.8)),
        finished(tmp_path, seed=1, accuracies=epochs(0.6, 1.0)),
        finished(tmp_path, "sshmvae", accuracies=epochs(0.2, 0.3)),
    ]
    drawn = lines(curves_figure(runs))
    assert list(drawn) == ["given x", "given w", "given x+w"]
    assert drawn["given x+w"] == {"SS-MVAE": pytest.approx([50, 90]), "SS-HMVAE": pytest.approx([20, 30])}
    assert drawn["given w"]["SS-MVAE"] == pytest.approx([12.5, 22.5])
    bands = curves_figure(runs).axes[2].collections
    assert len(bands) == 1  # one run has no spread
    heights = np.asarray(bands[0].get_paths()[0].vertices)[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(40), pytest.approx(100))


def test_what_the_lines_are_called_stays_within_the_picture(tmp_path: Path) -> None:
    """However many settings beyond the paper there are to name."""
    many: dict[str, Any] = dict.fromkeys(
        ("mean_alpha", "partial_alpha", "consistency", "smoothness", "information"), 1.25
    )
    others: list[dict[str, Any]] = [{"beta": 0.1}, {"beta": 10.0}, {"agreement": 3.0, "onset": 0.25, "averaging": 0.9}]
    runs = [
        finished(tmp_path, "sshmvae-kl", accuracies=epochs(0.4, 0.8), schedule="cosine", **many, **more)
        for more in others
    ]
    for drawn in (curves_figure(runs), curves_figure(runs[:1])):
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        suptitle = drawn.get_suptitle()
        texts = [text for text in drawn.findobj(Text) if text.get_text() == suptitle]
        for artist in (*drawn.legends, *texts):
            box = artist.get_window_extent(canvas.get_renderer())
            assert box.x0 >= 0
            assert box.x1 <= drawn.bbox.width


def test_figure_4_has_a_line_for_each_alpha_given_everything(tmp_path: Path) -> None:
    runs = [finished(tmp_path, alpha=alpha, accuracies=epochs(alpha / 20, alpha / 10)) for alpha in (10.0, 0.1, 1.0)]
    drawn = lines(alpha_figure(runs))
    assert list(drawn) == ["SS-MVAE, hm-mnist"]
    assert list(drawn["SS-MVAE, hm-mnist"]) == ["alpha 0.1", "alpha 1", "alpha 10"]
    assert drawn["SS-MVAE, hm-mnist"]["alpha 10"] == pytest.approx([50, 100])
    figure4(runs, tmp_path / "figure4.svg")
    assert "alpha 0.1" in (tmp_path / "figure4.svg").read_text()  # text stays text


def test_figure_6_has_a_panel_for_each_modality_and_the_first_means(tmp_path: Path) -> None:
    runs = [
        finished(
            tmp_path, model, split=split, accuracies=[{"x": share, "w": share / 2, "x+w": 1}], completions=completions
        )
        for model, completions in (("sshmvae", ("zeros", "iterative")), ("sshmvae-kl", ("encoders",)))
        for split, share in ((0, 0.5), (3, 0.7))
    ]
    drawn = lines(splits_figure(runs))
    assert drawn == {
        "given x": {"SS-HMVAE": pytest.approx([50, 70]), "SS-HMVAE-kl": pytest.approx([50, 70])},
        "given w": {"SS-HMVAE": pytest.approx([25, 35]), "SS-HMVAE-kl": pytest.approx([25, 35])},
    }
    assert [tick.get_text() for tick in splits_figure(runs).axes[0].get_xticklabels()] == ["0", "3"]
    figure6(runs, tmp_path / "figure6.pdf")
    assert (tmp_path / "figure6.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(DataError, match="data without splits"):
        splits_figure([finished(tmp_path / "other")])


def test_accuracy_against_labels_counts_those_that_the_run_kept(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path, labels=100, accuracies=epochs(0.5)),
        finished(tmp_path, labels=100, seed=1, accuracies=epochs(0.7)),
        finished(tmp_path, labels="all", labelled=2000, accuracies=epochs(0.9)),
    ]
    figure = labels_figure(runs)
    assert lines(figure)["given x+w"] == {"SS-MVAE": pytest.approx([60, 90])}
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["100", "2000"]


def test_runs_without_an_epoch_or_without_a_classifier_have_no_curve(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a finished epoch"):
        curves_figure([])
    with pytest.raises(DataError, match="measure no accuracy"):
        curves_figure([finished(tmp_path, "jmvae", accuracies=[{}])])


def test_files_are_the_same_bytes_again_and_follow_the_readers_colours(tmp_path: Path) -> None:
    run = finished(tmp_path)
    svg = render(curves_figure([run]), "svg")
    assert svg == render(curves_figure([run]), "svg")
    text = svg.decode()
    assert "prefers-color-scheme:dark" in text
    assert "fill: currentColor" in text
    assert "#1c2128" not in text.split("</style>", 1)[1]  # no ink that stays dark
    assert render(curves_figure([run]), "png").startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"curves\.jpg is not a picture format"):
        figure4([run], tmp_path / "curves.jpg")
    assert not list(tmp_path.glob("*.jpg"))


@pytest.mark.parametrize("ground", ["#ffffff", "#191e25"])
def test_the_lines_colours_have_contrast_on_light_and_on_dark(ground: str) -> None:
    def luminance(colour: str) -> float:
        channels = [int(part, 16) / 255 for part in re.findall("..", colour[1:])]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in COLOURS:
        low, high = sorted((luminance(colour), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 3, colour


@pytest.mark.parametrize("laid_out", [True, False])
def test_what_is_announced_has_room_of_its_own(laid_out: bool) -> None:
    figure = Figure(figsize=(5, 3), layout="constrained" if laid_out else None)
    figure.add_axes((0.1, 0.1, 0.8, 0.7)) if not laid_out else figure.subplots()
    announce(figure, "REDUCED: " + "4 epochs instead of 500; " * 6)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    (announced,) = figure.texts or [figure._suptitle]  # type: ignore[attr-defined]
    box, (axis,) = announced.get_window_extent(renderer), figure.axes
    assert "\n" in announced.get_text()
    assert box.y1 <= figure.bbox.height
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y0 >= axis.get_tightbbox(renderer).y1
    if not laid_out:
        assert axis.get_position().height * figure.get_figheight() == pytest.approx(0.7 * 3)
    (ink,) = set(re.findall(r"<text style=\"[^\"]*fill: ([^;\"]*)[^>]*>REDUCED", render(figure, "svg").decode()))
    assert ink == "currentColor"  # it follows the reader's scheme
