"""Extraction from a small image store with a network of VGG16's form, quick enough to be done again and again."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torchvision.models import VGG  # type: ignore[import-untyped]

from pipeline.features import extract as extraction_stage
from pipeline.features.backbones import PAPERS, trunk
from pipeline.features.extraction import features
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.images.resize import Bytes
from pipeline.images.store import ImageSettings
from pipeline.shards.schema import Features as Rows

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


def fc1(network: VGG, blocks: Iterable[Bytes], batch: int, **options: Any) -> Iterator[Rows]:
    """fc1 after its ReLU of every image."""
    return features(trunk(PAPERS, network)[0], PAPERS.input, blocks, batch, **options)
