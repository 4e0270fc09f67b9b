"""The data set's names, and one frame in its layout."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.washington import (
    EVERY,
    VIDEOS,
    Facts,
)

Pixels = NDArray[Any]


KINDS = ("crop.png", "depthcrop.png", "maskcrop.png", "loc.txt")


def names_of(sample: str, kinds: Sequence[str] = KINDS) -> list[str]:
    place = sample.rsplit("_", 2)[0]
    return [f"{place.rsplit('_', 1)[0]}/{place}/{sample}_{kind}" for kind in kinds]


def official_names(facts: Facts) -> Iterator[str]:
    """A file list with the manifest's objects and frame counts (10 frames where the count is not known)."""
    for category, numbers in facts.objects.items():
        for number, count in zip(numbers, facts.frames[category], strict=True):
            for k in range(count or 10):
                yield from names_of(f"{category}_{number}_{VIDEOS[k % 3]}_{1 + EVERY * (k // 3)}")


def write_frame(
    root: Path, sample: str = "apple_1_1_1", rgb: Pixels | None = None, depth: Pixels | None = None
) -> tuple[Path, Path, Path, Path]:
    rgb = np.full((6, 5, 3), 90, np.uint8) if rgb is None else rgb
    depth = np.full((6, 5), 700, np.uint16) if depth is None else depth
    crop, depthcrop, maskcrop, loc = (root / "rgbd-dataset" / name for name in names_of(sample))
    crop.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(crop)
    Image.fromarray(depth).save(depthcrop)
    Image.fromarray(np.eye(6, 5, dtype=bool)).save(maskcrop)
    loc.write_text("268,211\n")
    return crop, depthcrop, maskcrop, loc
