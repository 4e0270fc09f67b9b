"""Raw frames for the tests of the RGB-D stage, in the official layout, and looking at what came of them."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
from PIL import Image

from tests.support.paths import ROOT

OBJECTS = {"bell_pepper_1": 4, "bell_pepper_2": 3, "cup_1": 3, "cup_4": 4, "hat_2": 2, "hat_3": 5}


def write_frames(root: Path, objects: Mapping[str, int] = OBJECTS) -> Path:
    """Writes `root/raw/rgbd-dataset`: frames of each object, and trials that leave out the first or the last one."""
    folder = root / "raw" / "rgbd-dataset"
    for name, count in objects.items():
        category = name.rpartition("_")[0]
        place = folder / category / name
        place.mkdir(parents=True)
        rng = np.random.default_rng(len(name) + int(name[-1]))
        for k in range(count):
            height, width = rng.integers(8, 60, 2)
            stem = f"{name}_{(1, 2, 4)[k % 3]}_{1 + 5 * (k // 3)}"
            rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            depth = rng.integers(600, 1200, (height, width), dtype=np.uint16)
            depth[rng.random(depth.shape) < 0.1] = 0
            Image.fromarray(rgb).save(place / f"{stem}_crop.png")
            Image.fromarray(depth).save(place / f"{stem}_depthcrop.png")
            (place / f"{stem}_loc.txt").write_text("268,211\n")
    by_category: dict[str, list[str]] = {}
    for name in objects:
        by_category.setdefault(name.rpartition("_")[0], []).append(name)
    lines = []
    for trial in range(10):
        lines.append(f"****** trial {trial + 1} ******")
        lines += [names[-(trial % 2)] for names in by_category.values()]
    (folder / "testinstance_ids.txt").write_text("\n".join(lines) + "\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A separate process that runs a script, given on its command line, from the checkout; its output is piped."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def references_kept() -> Iterator[None]:
    """Within it, what a function of mmssl or h5py holds outlives its return, as if a thread held its frame."""
    kept = []

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_globals.get("__name__", "").startswith(("h5py.", "pipeline.")):
            kept.append(frame)

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)
        kept.clear()
