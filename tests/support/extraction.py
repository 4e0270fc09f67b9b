"""Extraction from a small image store with a network of VGG16's form, quick enough to be done again and again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.features import extract as extraction_stage
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.images.store import ImageSettings

IMAGES = ImageSettings(size=32)
SETTINGS = FeatureSettings(labelled=0.5, epochs=3, batch_size=4, learning_rate=1e-3, extract_batch=4)
FRAMES = 21


def extract(
    root: Path, splits: Sequence[int] = (0,), settings: FeatureSettings = SETTINGS, **options: Any
) -> list[Path]:
    """`mmssl extract` on the CPU with random weights."""
    return extraction_stage.extract(
        "rgbd", root, splits, IMAGES, settings, **({"weights": "random", "device": "cpu"} | options)
    )
