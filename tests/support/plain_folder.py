"""A person's folder of pictures: the rendered sample without its layout, some depth and most labels removed."""

import shutil
from pathlib import Path

from pipeline.sample.render import render


def write_plain_folder(folder: Path, scratch: Path) -> Path:
    """Writes `RECORDING/LABEL/{rgb,depth}/NNNN.png` of 3 categories of 4 objects, 36 frames.

    Two recordings of each category have their label; every sixth frame lacks its depth, and every eleventh its colour.
    """
    raw = render(scratch, categories=3, objects_per_category=4, views=1, seed=0)
    for number, colour in enumerate(sorted(raw.glob("*/*/*_crop.png"))):
        recording, category = colour.parent.name, colour.parent.parent.name
        label = category if recording.endswith(("_1", "_2")) else "_"
        depth = colour.with_name(colour.name.replace("_crop", "_depthcrop"))
        for camera, file, every in (("rgb", colour, 11), ("depth", depth, 6)):
            if number % every != every - 1:
                target = folder / recording / label / camera / f"{number:04d}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    return folder
