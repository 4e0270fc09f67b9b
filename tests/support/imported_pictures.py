"""An image store as importing makes it of a person's own pictures, and the pictures themselves as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.images.depth import encode_depth
from pipeline.images.resize import Bytes, resize_rgb
from pipeline.images.store import (
    Entry,
    ImageModality,
    ImageSettings,
    ImageStore,
    ImportedRows,
    ObjectImages,
    StoreIndex,
    object_path,
    write_object,
)

CLASSES = ("cup", "hat")
PER_OBJECT = 4


@dataclass(frozen=True)
class Frame:
    """A frame: class index or -1, group, whether it is for testing, and the modalities it lacks."""

    label: int
    group: str = ""
    test: bool = False
    lacks: tuple[ImageModality, ...] = ()


# Twelve frames: two classes and unlabelled ones, some of which lack a camera, and two for testing.
FRAMES = (
    Frame(0, "a"), Frame(1, "b"), Frame(0, "a", lacks=("depth",)), Frame(-1, lacks=("rgb",)),
    Frame(1, "b"), Frame(0, "c"), Frame(-1), Frame(-1, lacks=("depth",)),
    Frame(1, "d", test=True), Frame(0, "e", test=True, lacks=("rgb",)), Frame(1), Frame(-1, lacks=("depth",)),
)  # fmt: skip


def picture(folder: Path, k: int, modality: ImageModality) -> Path:
    """The file of a frame's picture, written if it is not there."""
    path = folder / modality / f"{k:04}.png"
    if not path.exists():
        rng = np.random.default_rng([k, modality == "rgb"])
        height, width = rng.integers(20, 60, 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        if modality == "rgb":
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        else:
            depth = rng.integers(500, 1500, (height, width), dtype=np.uint16)
            depth[rng.random(depth.shape) < 0.1] = 0
            Image.fromarray(depth).save(path)
    return path


def import_pictures(
    root: Path,
    frames: Sequence[Frame] = FRAMES,
    *,
    name: str = "mine",
    classes: Sequence[str] = CLASSES,
    settings: ImageSettings = ImageSettings(size=32),  # noqa: B008
) -> ImageStore:
    """Writes `root/images/<name>`, and the pictures into `root/pictures`."""
    folder, entries = root / "images" / name, {}

    def prepared(k: int, modality: ImageModality) -> Bytes:
        size = settings.size
        if modality in frames[k].lacks:
            return np.zeros((size, size, 3), np.uint8)
        pixels = np.asarray(Image.open(picture(root / "pictures", k, modality)))
        return (
            resize_rgb(pixels, size) if modality == "rgb" else encode_depth(pixels, settings.depth_encoding, size=size)
        )

    for first in range(0, len(frames), PER_OBJECT):
        rows = range(first, min(first + PER_OBJECT, len(frames)))
        block = f"frames-{first // PER_OBJECT}"
        ids = tuple(f"frame {k}" for k in rows)
        rgb, depth = (np.stack([prepared(k, modality) for k in rows]) for modality in ("rgb", "depth"))
        header = write_object(object_path(folder, block), ObjectImages(block, ids, rgb, depth, {}, {}), settings, "")
        entries[block] = Entry(ids=ids, digest=header.digest)
    lacking = {
        modality: tuple(k for k, frame in enumerate(frames) if modality in frame.lacks) for modality in ("rgb", "depth")
    }
    imported = ImportedRows(
        classes=tuple(classes),
        labels=tuple(frame.label for frame in frames),
        groups=tuple(frame.group for frame in frames),
        test=tuple(frame.test for frame in frames),
        lacking={modality: rows for modality, rows in lacking.items() if rows},
    )
    index = StoreIndex(dataset=name, source={"imported": "pictures"}, settings=settings, versions=(), trials=(),
                       objects=entries, skipped={}, flawed={}, rows=imported)  # fmt: skip
    return ImageStore.finish(folder, index)
