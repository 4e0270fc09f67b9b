"""Whatever lies in a folder of frames: every frame is used, or listed with the reason, and nothing stops the others."""

import tempfile
from dataclasses import dataclass
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
from tests.support.odd_pictures import BAD, GOOD_COLOUR, GOOD_DEPTH, spoil, write_colour, write_depth

TINY = ImageSettings(size=32)


@dataclass(frozen=True)
class Files:
    """The two files of a frame: a mode and suffixes, and what is wrong with them, if anything."""

    mode: str
    colour: str
    depth: str
    bad_colour: str | None
    bad_depth: str | None

    @property
    def good(self) -> bool:
        return self.bad_colour is None and self.bad_depth is None

    def write(self, colour: Path, depth: Path) -> None:
        """Writes them to paths without suffix."""
        for path, suffix, bad in ((colour, self.colour, self.bad_colour), (depth, self.depth, self.bad_depth)):
            path.parent.mkdir(parents=True, exist_ok=True)
            place = path.with_name(path.name + suffix)
            if path == colour:
                write_colour(place, self.mode)
            else:
                write_depth(place)
            if bad is not None:
                spoil(place, bad, colour=path == colour)


@st.composite
def files(draw: st.DrawFn) -> Files:
    mode = draw(st.sampled_from(sorted(GOOD_COLOUR)))
    bad = st.sampled_from([None] * 12 + list(BAD))
    return Files(
        mode, draw(st.sampled_from(GOOD_COLOUR[mode])), draw(st.sampled_from(GOOD_DEPTH)), draw(bad), draw(bad)
    )


GOOD = Files("RGB", ".png", ".png", None, None)
numbers = st.tuples(st.sampled_from(["cup", "7_up can"]), st.integers(1, 2), st.integers(1, 3), st.integers(0, 7))


def clutter(folder: Path) -> None:
    """What systems and people leave in folders."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._cup_1_1_1_crop.png", "notes.txt"):
        (folder / name).write_bytes(b"\0")
    (folder / "__MACOSX").mkdir()
    (folder / "up").symlink_to(folder)


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
    gone = {name for name, pair in named.items() if pair.bad_colour == pair.bad_depth == "missing"}
    assert set().union(*places) == set(named) - gone
    assert sum(map(len, places)) == len(named) - len(gone)
    assert set(store.ids) == {name for name, pair in named.items() if pair.good} - set(not_taken)


@settings(max_examples=15)
@given(st.dictionaries(st.tuples(st.sampled_from(["cup", "hat", "_"]), st.integers(0, 9)), files(), max_size=5))
def test_own_pictures(rows: dict[tuple[str, int], Files]) -> None:
    rows |= {(label, number): GOOD for label in ("cup", "hat") for number in range(10, 16)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "mine"
        for (label, number), pair in rows.items():
            pair.write(folder / label / "rgb" / f"{number:04d}", folder / label / "depth" / f"{number:04d}")
        clutter(folder)
        source = read_source(folder)
        labelling = divide(source, None, 0)
        survey(source, labelling)
        preview_imported(source, Path(scratch) / "sheet.png")
        store = import_pictures(source, labelling, "mine", Path(scratch) / "ws", TINY, workers=1)
    named = {f"{label}/{number:04d}": pair for (label, number), pair in rows.items()}
    usable = {
        name
        for name, pair in named.items()
        if {pair.bad_colour, pair.bad_depth} <= {None, "missing"} and not pair.bad_colour == pair.bad_depth == "missing"
    }
    gone = {name for name, pair in named.items() if pair.bad_colour == pair.bad_depth == "missing"}
    assert set(store.ids) == usable
    assert set(store.index.skipped) == set(named) - usable - gone
