"""Folders of frames at random through whole commands: each frame is read or left out by name, and counts add up."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.images.store import ImageStore
from tests.support.commands import Command
from tests.support.random_frames import GOOD, Files, Layout, clutter, files, layouts, numbers

SHAPES = ("{category}/{object}/{name}", "{object}/{name}", "{name}", "a/b/{category}/{object}/{name}")


def left_out(err: str) -> set[str]:
    """The frames that the log names."""
    return set(re.findall(r"left out: (.*?): ", err))


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layouts, st.dictionaries(st.tuples(st.sampled_from(["cup", "hat", "_"]), st.integers(0, 9)), files(), max_size=6)
)
def test_own_pictures(
    mmssl: Command, tmp_path_factory: pytest.TempPathFactory, layout: Layout, rows: dict[tuple[str, int], Files]
) -> None:
    rows |= {(label, number): GOOD for label in ("cup", "hat") for number in range(10, 16)}
    root = tmp_path_factory.mktemp("own")
    for (label, number), pair in rows.items():
        pair.write(*layout.places(root / "mine", label, number))
    clutter(root / "mine")
    result = mmssl("data", "import", root / "mine", "--name", "mine", "--size", 32, "--workers", 1, "--root", root)
    assert result.code == 0, result.err
    by_id = {layout.id(*row): pair for row, pair in rows.items() if not pair.gone}
    usable = {name for name, pair in by_id.items() if pair.usable}
    no_files = {name for name, pair in by_id.items() if {pair.bad_colour, pair.bad_depth} & {"link", "folder"}}
    whole = {name for name, pair in by_id.items() if "missing" not in (pair.bad_colour, pair.bad_depth)} - no_files
    assert result.out.startswith(f"{len(by_id.keys() - no_files)} rows, {len(whole)} of them with every modality\n")
    assert result.out.endswith(f"mine-32: {len(usable)} rows\n")
    assert left_out(result.err) == set(by_id) - usable - no_files
    assert len(left_out(result.out)) >= min(1, len(no_files))
    store = ImageStore.open(root / "images" / "mine-32")
    assert set(store.ids) == usable
    assert set(store.index.skipped) == set(by_id) - usable


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(numbers, files(), max_size=6), st.sampled_from(SHAPES), st.integers(0, 4))
def test_washington_frames(
    mmssl: Command,
    tmp_path_factory: pytest.TempPathFactory,
    frames: dict[tuple[str, int, int, int], Files],
    shape: str,
    pad: int,
) -> None:
    frames = {("cup", 1, 1, 1): GOOD} | frames | {("cup", 2, 4, 6): GOOD}
    root = tmp_path_factory.mktemp("washington")
    folder = root / "raw" / "rgbd-dataset"
    for (category, number, video, frame), pair in frames.items():
        stem = f"{category}_{number}_{video}_{frame:0{pad}d}"
        names = {"category": category, "object": f"{category}_{number}"}
        pair.write(*(folder / shape.format(**names, name=f"{stem}_{kind}") for kind in ("crop", "depthcrop")))
    clutter(folder)
    result = mmssl("preprocess", "rgbd", "--size", 32, "--workers", 1, "--frames", "all", "--root", root)
    assert result.code == 0, result.err
    named = {"_".join(map(str, key)): pair for key, pair in frames.items() if not pair.gone}
    good = {name for name, pair in named.items() if pair.good}
    assert f"{len(good)} frames" in result.out
    assert left_out(result.err) >= set(named) - good
    assert set(ImageStore.open(root / "images" / "rgbd-32").ids) == good
