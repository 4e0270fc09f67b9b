"""The encoders of pictures, which stand in stage 1: what `mmssl export` and `mmssl predict` hand to stage 2."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.shards.shard import Shard
    from trainer.inference.inputs import Encode

_MODULE = "pipeline.features.encoder"


def open_encoder(path: Path) -> "Encode":
    """Opens the file of an encoder.

    Raises:
        DataError: it is missing, damaged, or was written by a newer version.
    """
    encoder: Encode = _module().Encoder.open(path)
    return encoder


def locate(shard: "Shard", modality: str) -> Path:
    """The file of the encoder that made the features of a shard's modality.

    Raises:
        DataError: it was not kept.
    """
    path: Path = _module().locate(shard, modality)
    return path


def _module() -> Any:
    return import_module(_MODULE)
