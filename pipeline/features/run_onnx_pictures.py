"""Answers one frame with this folder's ONNX files: python run_onnx.py rgb=colour.png depth=depth.png

A camera that is left out is missing; a modality without an encoder takes its vector, w=w.npy [1, width]. It needs
numpy, onnxruntime and Pillow alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps


def load(file: str) -> Any:
    path = str(Path(__file__).with_name(file))
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def read_colour(path: str) -> NDArray[Any]:
    """uint8 [height, width, 3]."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode not in ("RGB", "L") or "transparency" in image.info:
        sys.exit(f"{path}: is a picture of mode {image.mode}: save it as RGB with 8 bits per channel")
    return np.asarray(image.convert("RGB"))


def read_depth(path: str) -> NDArray[Any]:
    """float32 [height, width]; holes (0, NaN, 65535 in 16 bits) take the value of the nearest pixel that has one."""
    depth = (
        np.load(path, allow_pickle=False)
        if path.endswith(".npy")
        else np.asarray(ImageOps.exif_transpose(Image.open(path)))
    )
    if depth.ndim != 2 or depth.dtype.itemsize == 1:
        sys.exit(
            f"{path}: is {depth.dtype} {depth.shape}: depth has one channel of 16 bits or of floating-point numbers"
        )
    if depth.dtype.kind in "iu" and depth.max() <= 65535:
        depth = np.where(depth == 65535, 0, depth)  # saturated: nothing was seen
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    return fill(depth) if depth.any() else depth


def fill(depth: Any) -> Any:
    """Holes (0) with the value of the nearest pixel; of several, the one farthest left, then up."""
    rows, columns = np.indices(depth.shape)
    far = sum(depth.shape)
    above = np.maximum.accumulate(np.where(depth > 0, rows, -far), axis=0)
    below = np.minimum.accumulate(np.where(depth > 0, rows, 2 * far)[::-1], axis=0)[::-1]
    near = np.where(rows - above <= below - rows, above, below)  # the nearest row in the same column that has a value
    squares = (near - rows) ** 2
    best, source = squares.copy(), columns.copy()
    for step in range(1, depth.shape[1]):
        if step**2 > best.max():
            break
        for here, there, wins in (
            (np.s_[:, step:], np.s_[:, :-step], np.less_equal),
            (np.s_[:, :-step], np.s_[:, step:], np.less),
        ):
            distance = squares[there] + step**2
            nearer = wins(distance, best[here])
            best[here][nearer], source[here][nearer] = distance[nearer], columns[there][nearer]
    return depth[near[rows, source], source]


model = load("model.onnx")
classes = json.loads(model.get_modelmeta().custom_metadata_map["classes"])
*modalities, mask = model.get_inputs()
given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
if not given or given.keys() - {one.name for one in modalities}:
    sys.exit(f"usage: python {sys.argv[0]} " + " ".join(f"{one.name}=FILE" for one in modalities))

inputs = {mask.name: np.array([[one.name in given for one in modalities]])}
for one in modalities:
    if one.name not in given:
        inputs[one.name] = np.zeros((1, one.shape[1]), np.float32)
    elif Path(__file__).with_name(f"encoder-{one.name}.onnx").exists():
        encoder = load(f"encoder-{one.name}.onnx")
        read = read_depth if encoder.get_modelmeta().custom_metadata_map["takes"].startswith("float32") else read_colour
        inputs[one.name] = encoder.run(None, {encoder.get_inputs()[0].name: read(given[one.name])[None]})[0]
    else:
        inputs[one.name] = np.load(given[one.name], allow_pickle=False).astype(np.float32)
(row,) = model.run(None, inputs)[0]
print("no answer" if np.isnan(row).any() else f"{classes[row.argmax()]} {row.max():.4f}")
