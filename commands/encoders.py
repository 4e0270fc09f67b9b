"""The encoders of pictures, which stand in stage 1: what `mmssl export` and `mmssl predict` hand to stage 2."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.shards.shard import Shard
    from trainer.inference.bundle_writing import WriteExports
    from trainer.inference.inputs import Encode

_MODULE = "pipeline.features.encoder"


def open_encoder(path: Path, device: str) -> "Encode":
    """Opens the file of an encoder, on a device (auto, cpu or cuda).

    Raises:
        DataError: it is missing, damaged, or was written by a newer version.
        UsageError: there is no such device.
    """
    encoder: Encode = _module().Encoder.open(path, device)
    return encoder


def locate(shard: "Shard", modality: str) -> Path:
    """The file of the encoder that made the features of a shard's modality.

    Raises:
        DataError: it was not kept.
    """
    path: Path = _module().locate(shard, modality)
    return path


def exports_of(onnx: bool, program: bool, encoders: "Sequence[str]") -> "WriteExports | None":
    """What writes a bundle's files for programs without mmssl; None if none is wanted.

    Args:
        encoders: the modalities whose encoders become ONNX files too.
    """
    from pipeline.features import encoder_onnx
    from trainer.inference import portable

    if not (onnx or program):
        return None
    runner = Path(portable.__file__).with_name("run_onnx.py")
    if encoders:
        runner = Path(encoder_onnx.__file__).with_name("run_onnx_pictures.py")
    return portable.Portable(onnx, program, runner, encoders, encoder_onnx.write_encoder_onnx)


def _module() -> Any:
    return import_module(_MODULE)
