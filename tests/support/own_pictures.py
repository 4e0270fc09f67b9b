"""Pictures as a person has them: small colour and depth files in folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDES = (24, 32)  # height and width


def colour(seed: int) -> NDArray[np.uint8]:
    """Colour `[H, W, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (*SIDES, 3), dtype=np.uint8)


def depth(seed: int) -> NDArray[np.uint16]:
    """Depth `[H, W]` with some holes."""
    rng = np.random.default_rng(1000 + seed)
    values = rng.integers(600, 1200, SIDES, dtype=np.uint16)
    values[rng.random(SIDES) < 0.1] = 0
    return values


def save(path: Path, values: NDArray[np.generic]) -> Path:
    """Writes a picture of any format, or an array as `.npy`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def write_pictures(
    folder: Path, labels: Sequence[str] = ("cup", "hat", "unlabelled"), rows: int = 4, without_depth: int = 1
) -> Path:
    """Writes `<label>/rgb/0000.png` and `<label>/depth/0000.png`; the first rows of each label lack their depth."""
    for number, label in enumerate(labels):
        for row in range(rows):
            save(folder / label / "rgb" / f"{row:04d}.png", colour(100 * number + row))
            if row >= without_depth:
                save(folder / label / "depth" / f"{row:04d}.png", depth(100 * number + row))
    return folder
