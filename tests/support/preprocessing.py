"""Preprocessing of small images in one process."""

from pathlib import Path
from typing import Any

from pipeline.images import preprocess as preprocessing
from pipeline.images.store import ImageSettings, ImageStore

SMALL = ImageSettings(size=40)


def preprocess(root: Path, settings: ImageSettings = SMALL, **options: Any) -> ImageStore:
    """`mmssl preprocess rgbd`."""
    return preprocessing.preprocess("rgbd", root, settings, **({"workers": 1} | options))
