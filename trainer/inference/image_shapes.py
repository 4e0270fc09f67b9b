"""Which modalities are images, pixel by pixel, and of what height and width."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Modality
from pipeline.shards.shard import Shard


def image_shape(shard: Shard, modality: str) -> tuple[int, ...] | None:
    """Height and width (and 3, for colours) of a modality's values as an image, or None if they are not an image.

    The shard's provenance gives it under `shape`, `{"x": [28, 14]}`. If it does not, values in [0, 1] are taken as a
    square image, or as the modality's part of one if all modalities, side by side, form a square (halves of a digit).

    Raises:
        DataError: the provenance gives a shape that does not fit the values.
    """
    shapes = shard.provenance.get("shape")
    if isinstance(shapes, Mapping) and modality in shapes:
        return _given_shape(shapes[modality], shard, modality)
    return guessed_shape(shard.modalities, modality)


def guessed_shape(modalities: Sequence[Modality], modality: str) -> tuple[int, int] | None:
    """The shape of a modality's values as an image, where nothing says what it is; None if they are not an image."""
    (width,) = (m.width for m in modalities if m.name == modality)
    if any(m.distribution != "bernoulli" for m in modalities if m.name == modality):
        return None
    if math.isqrt(width) ** 2 == width:
        return math.isqrt(width), math.isqrt(width)
    return (height, width // height) if (height := height_of_parts(modalities)) else None


def height_of_parts(modalities: Sequence[Modality]) -> int | None:
    """The height of the square image that the modalities form side by side, or None if they do not form one."""
    total = sum(m.width for m in modalities)
    side = math.isqrt(total)
    fits = side * side == total and all(m.width % side == 0 for m in modalities)
    return side if fits and all(m.distribution == "bernoulli" for m in modalities) else None


def _given_shape(shape: Any, shard: Shard, modality: str) -> tuple[int, ...]:
    (width,) = (m.width for m in shard.modalities if m.name == modality)
    if (
        not isinstance(shape, list)
        or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))
        or not all(isinstance(side, int) and side > 0 for side in shape)
        or math.prod(shape) != width
    ):
        raise DataError(f"{shard.path}: its provenance gives {modality} the shape {shape}, but it has {width} values")
    return tuple(shape)
