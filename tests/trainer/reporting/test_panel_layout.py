"""Panels in rows, grids and columns, and that long names stay within their pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.shards.shard import Modality
from tests.support.finished_runs import finished
from tests.support.training import make_settings, make_shard, run_stack
from trainer.evaluation.subsets import shown_subsets, subsets
from trainer.inference.loading import LoadedRun, load_run
from trainer.reporting.diagnostics import confusion_figure, latent_figure, predict, reliability_figure
from trainer.reporting.generated_images import generation_figure
from trainer.reporting.panel_layout import LONGEST_NAME, column_of, first_in_rows, lowest, row_or_grid, shortened
from trainer.reporting.plots import curves_figure, labels_figure

LONG = "thermal camera on the left arm calibrated in spring"
CLASSES = ("a class name that somebody copied from a catalogue", "bowl", "a class name that somebody typed by hand")


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (7, (1, 7)), (9, (3, 4)), (13, (4, 4))])
def test_many_panels_stand_in_a_grid_and_no_cell_is_empty(count: int, shape: tuple[int, int]) -> None:
    figure, panels = row_or_grid(count)
    grid = panels[0].get_subplotspec()
    assert grid is not None
    assert grid.get_gridspec().get_geometry() == shape
    assert figure.axes == list(panels)
    assert len(panels) == count
    assert len(first_in_rows(panels)) == shape[0]
    assert len(lowest(panels)) == min(count, shape[1])
    height = figure.get_figheight() / shape[0]
    assert 2.5 < height < 4
    assert len(column_of(count)[1]) == count


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert shortened("bowl") == "bowl"
    assert shortened(CLASSES[0]) == "a class name…a catalogue"
    assert shortened(CLASSES[0]) != shortened(CLASSES[2])
    assert len(shortened("x" * 99)) == LONGEST_NAME


def outside(figure: Figure) -> list[str]:
    """The texts of a figure that are not wholly within it; numbers beyond an axis are not drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = []
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and any(letter.isalpha() for letter in text.get_text()):
            box = text.get_window_extent(canvas.get_renderer())
            if min(box.x0, box.y0) < -1 or box.x1 > figure.bbox.width + 1 or box.y1 > figure.bbox.height + 1:
                found.append(text.get_text())
    return found


def loaded(folder: Path, names: Sequence[str], classes: Sequence[str] = CLASSES) -> LoadedRun:
    modalities = [Modality(name, 4, "bernoulli") for name in names]
    shard = make_shard(folder / "shard.h5", modalities, classes=classes)
    (run,) = run_stack(folder, [make_settings("sshmvae-kl", shard, epochs=1)], [shard])
    return load_run(run)


@pytest.mark.parametrize(
    "names", [(LONG, "depth"), (LONG, "depth", "touch", "sound", "joints", "position of the base")], ids=["2", "6"]
)
def test_long_names_of_modalities_and_classes_stay_within_the_pictures(names: tuple[str, ...], tmp_path: Path) -> None:
    of_run = loaded(tmp_path, names)
    shown = len(shown_subsets(names))
    predictions = predict(of_run)
    confusions, latents = confusion_figure(predictions, of_run.data.classes), latent_figure(of_run)
    assert len(confusions.axes) == len(latents.axes) == shown
    reliability = reliability_figure(predictions)
    assert len(reliability.axes) == (1 if len(names) < 4 else 3)
    labelled = [text for panel in reliability.axes for text in panel.get_legend_handles_labels()[1] if "ECE" in text]
    assert len(labelled) == len(set(labelled)) == shown
    for figure in (confusions, latents, reliability, curves_figure([of_run.run]), labels_figure([of_run.run])):
        assert outside(figure) == []
    assert outside(generation_figure([of_run.run])) == []


def test_classes_are_written_below_the_lowest_panel_of_each_column(tmp_path: Path) -> None:
    of_run = loaded(tmp_path, "bcdefg", ("cup", "bowl", "hat"))
    figure = confusion_figure(predict(of_run), of_run.data.classes)
    FigureCanvasAgg(figure).draw()
    written = [any(tick.label1.get_visible() for tick in panel.xaxis.get_major_ticks()) for panel in figure.axes]
    assert written == [False] * 9 + [True] * 4
    assert [panel.get_title() for panel in figure.axes[-5::2]] == ["given all but e", "given all but c", "given all 6"]


def test_curves_of_every_subset_show_those_few(tmp_path: Path) -> None:
    shares = {"+".join(subset): 0.5 for subset in subsets("abcdef")}
    runs = [finished(tmp_path, data="mine", labels=labels, accuracies=[shares, shares]) for labels in (10, 20)]
    for figure in (curves_figure(runs), labels_figure(runs)):
        titles = [panel.get_title() for panel in figure.axes]
        assert len(titles) == 13
        assert (titles[0], titles[6], titles[12]) == ("given a", "given all but f", "given all 6")
        left = [panel for panel in figure.axes if panel.get_ylabel()]
        assert left == list(first_in_rows(figure.axes))
        assert np.ptp(figure.get_size_inches()) < 4
