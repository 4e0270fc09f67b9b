"""Extraction from a small image store with a network of VGG16's form, quick enough to be done again and again."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torchvision.models import VGG  # type: ignore[import-untyped]

from pipeline.features import executors, fine_tuning, vgg
from pipeline.features import extract as extraction_stage
from pipeline.features.backbones import PAPERS, trunk
from pipeline.features.extraction import features
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.features.noise import seed_of
from pipeline.features.split_modality import ExtractionTask
from pipeline.images.resize import Bytes
from pipeline.images.store import ImageSettings
from pipeline.runtime.errors import MmsslError
from pipeline.shards.schema import Features as Rows
from tests.support.tiny_vgg import TinyVgg

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


_in_process = executors._in_process  # what tests put in its place, below


def in_process(unit: ExtractionTask) -> MmsslError | None:
    """What a process of its own does with a unit, with the tiny network, which it does not have from its parent."""
    setattr(vgg, "vgg16", TinyVgg)  # noqa: B010
    return _in_process(unit)


def in_process_that_dies(unit: ExtractionTask) -> MmsslError | None:
    """The same, but one unit's process dies."""
    if unit.name == "split 3, depth":
        os._exit(9)
    return in_process(unit)


def in_slow_process(unit: ExtractionTask) -> MmsslError | None:
    """The same, with steps that take their time and checkpoints at each of them."""
    fine_tuning._CHECKPOINT_SECONDS = 0.0
    setattr(fine_tuning, "seed_of", lambda *purpose: (time.sleep(0.1), seed_of(*purpose))[1])  # noqa: B010
    return in_process(unit)
