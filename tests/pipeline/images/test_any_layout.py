"""Whatever lies in a folder of frames: every frame is used, or listed with the reason, and nothing stops the others."""

import tempfile
from pathlib import Path
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.washington_index import index_dataset
from pipeline.images.imported import import_pictures
from pipeline.images.imported import preview as preview_imported
from pipeline.images.preprocess import preprocess, preview
from pipeline.images.store import ImageSettings
from pipeline.sources.parts import divide
from pipeline.sources.reading import read_source
from pipeline.sources.survey import survey
from tests.support.random_frames import GOOD, Files, Layout, clutter, files, layouts, numbers

TINY = ImageSettings(size=32)


@settings(max_examples=15)
@given(
    st.dictionaries(numbers, files(), max_size=5),
    st.sampled_from(
        ["{category}/{object}/{name}", "{object}/{name}", "{name}", "a/{category}/{object}/{name}", "{object}/x/{name}"]
    ),
    st.integers(0, 4),
    st.sampled_from(["evaluation", "all"]),
)
def test_washington_frames(
    frames: dict[tuple[str, int, int, int], Files], layout: str, pad: int, taken: Literal["evaluation", "all"]
) -> None:
    frames = {("cup", 1, 1, 1): GOOD} | frames | {("cup", 2, 4, 6): GOOD}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folder = root / "raw" / "rgbd-dataset"
        for (category, number, video, frame), pair in frames.items():
            stem = f"{category}_{number}_{video}_{frame:0{pad}d}"
            colour, depth = (
                folder / layout.format(category=category, object=f"{category}_{number}", name=f"{stem}_{kind}")
                for kind in ("crop", "depthcrop")
            )
            pair.write(colour, depth)
        clutter(folder)
        preview("rgbd", root, TINY, root / "sheet.png", taken=taken)
        store = preprocess("rgbd", root, TINY, workers=1, taken=taken, trials="official")
        not_taken = index_dataset(folder, taken=taken).not_taken
    named = {"_".join(map(str, key)): pair for key, pair in frames.items()}
    places = [set(store.ids), set(store.index.skipped) & set(named), set(not_taken)]
    gone = {name for name, pair in named.items() if pair.gone}
    assert set().union(*places) == set(named) - gone
    assert sum(map(len, places)) == len(named) - len(gone)
    assert set(store.ids) == {name for name, pair in named.items() if pair.good} - set(not_taken)


@settings(max_examples=15)
@given(
    layouts, st.dictionaries(st.tuples(st.sampled_from(["cup", "hat", "_"]), st.integers(0, 9)), files(), max_size=5)
)
def test_own_pictures(layout: Layout, rows: dict[tuple[str, int], Files]) -> None:
    rows |= {(label, number): GOOD for label in ("cup", "hat") for number in range(10, 16)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "mine"
        for (label, number), pair in rows.items():
            pair.write(*layout.places(folder, label, number))
        clutter(folder)
        source = read_source(folder)
        labelling = divide(source, None, 0)
        survey(source, labelling)
        preview_imported(source, Path(scratch) / "sheet.png")
        store = import_pictures(source, labelling, "mine", Path(scratch) / "ws", TINY, workers=1)
    by_id = {layout.id(*row): pair for row, pair in rows.items() if not pair.gone}
    assert set(store.ids) == {name for name, pair in by_id.items() if pair.usable}
    assert set(store.index.skipped) == set(by_id) - set(store.ids)
