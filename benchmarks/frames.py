"""RGB-D frames for the benchmarks: a few real or rendered frames, linked under as many names as needed."""

import os
from itertools import cycle, islice
from pathlib import Path

from pipeline.datasets import washington
from pipeline.datasets.washington_index import index_dataset
from pipeline.sample.render import render

PER_OBJECT = 140  # frames, as in the evaluation archive


def raw_frames(given: Path | None, scratch: Path) -> Path:
    """The folder of a data set in the official layout: the given one, or one that is rendered now."""
    return given or render(scratch / "rendered", categories=4, objects_per_category=2, views=6)


def link(source: Path, root: Path, count: int) -> tuple[washington.Frame, ...]:
    """Links `count` frames into `root/raw/rgbd-dataset`, taking the source's frames in turn, and returns them.

    Each object gets frames of all objects of the source, so all objects are alike, however many there are.
    """
    frames = index_dataset(source).frames
    in_turn = islice(cycle(frames[k] for k in _strided(len(frames))), count)
    for k, frame in enumerate(in_turn):
        name, place = f"cup_{k // PER_OBJECT + 1}", k % PER_OBJECT
        folder = root / "raw" / "rgbd-dataset" / "cup" / name
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{name}_{washington.VIDEOS[place % 3]}_{1 + washington.EVERY * (place // 3)}"
        for kind in ("crop.png", "depthcrop.png", "loc.txt"):
            os.symlink((frame.folder / f"{frame.id}_{kind}").resolve(), folder / f"{stem}_{kind}")
    return index_dataset(root / "raw").frames


def _strided(count: int) -> list[int]:
    """The numbers 0 to count - 1, ordered so that neighbours are far apart."""
    step = next(step for step in range(max(2, int(count**0.5)), count + 2) if count % step or step > count)
    return [k for first in range(step) for k in range(first, count, step)]
