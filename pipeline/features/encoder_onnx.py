"""Writes an encoder as an ONNX file that takes pictures of any size, and compares the two."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.features.encoder import Encoder
from pipeline.features.encoder_graph import PictureNetwork
from pipeline.images.depth import fill_holes
from pipeline.runtime.errors import UsageError
from pipeline.runtime.onnx_files import OnnxFile, export_program, write_onnx
from pipeline.shards.schema import Features

PICTURES, AXES = "pictures", {0: "pictures", 1: "height", 2: "width"}
FEATURES = "features"
COLOUR, DEPTH = "uint8 [pictures, height, width, 3], RGB", "float32 [pictures, height, width], holes filled"
_COMPARED = ((480, 640), (90, 60), (148, 148), (61, 200))  # heights and widths
_COARSE = 12  # pixels of a patch of one brightness, in the pictures that are compared
_HOLES = 0.05  # the share of depth that is missing in them


def write_encoder_onnx(encoder: Path, path: Path) -> tuple[Features, Features]:
    """Writes the file of an encoder as ONNX, and gives the features of a few pictures by both, `[n, D]` each.

    The ONNX file takes depth without holes, as float32; filling them is left to whoever runs it.

    Raises:
        UsageError: depth is encoded as surface normals, which need to know more than the picture.
        DataError: the encoder cannot be read, or not be written as ONNX.
        StorageError: the disk is full or refuses.
    """
    opened = Encoder.open(encoder)
    colour, name = opened.details.depth_encoding is None, opened.details.modality
    if opened.details.depth_encoding == "normals":
        raise UsageError(
            f"the encoder of {name} takes surface normals, which a picture by itself does not give",
            "leave out --with-encoder",
        )
    example = torch.zeros((2, 40, 50, 3), dtype=torch.uint8) if colour else torch.zeros(2, 40, 50)
    program = export_program(PictureNetwork(opened), [example], [AXES])
    write_onnx(path, program, [PICTURES], FEATURES, {"takes": COLOUR if colour else DEPTH})
    written = OnnxFile(path)
    patches = [_patches(seed, *sides) for seed, sides in enumerate(_COMPARED)]
    if colour:
        return opened(patches), np.concatenate([written([picture[None]]) for picture in patches])
    depths = [_depth(seed, picture) for seed, picture in enumerate(patches)]
    return opened(depths), np.concatenate([written([fill_holes(d).astype(np.float32)[None]]) for d in depths])


def _patches(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A colour picture of coarse patches with fine noise."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 200, (height // _COARSE + 1, width // _COARSE + 1, 3))
    patches = np.kron(patches, np.ones((_COARSE, _COARSE, 1), np.int64))[:height, :width]
    return (patches + rng.integers(0, 56, patches.shape)).astype(np.uint8)


def _depth(seed: int, picture: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Depth with holes of a colour picture."""
    depth = 500 + 10 * picture[..., 0].astype(np.uint16)
    depth[np.random.default_rng(seed).random(depth.shape) < _HOLES] = 0
    return depth
