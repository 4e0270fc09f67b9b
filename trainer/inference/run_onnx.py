"""Answers vectors with this folder's model.onnx: python run_onnx.py x=x.npy w=w.npy, an array [rows, width] each.

A modality that is left out, or a row of NaN, is missing. It needs numpy and onnxruntime alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

model = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")), providers=["CPUExecutionProvider"])
classes = json.loads(model.get_modelmeta().custom_metadata_map["classes"])
*modalities, mask = model.get_inputs()

given = {
    name: np.load(file, allow_pickle=False) for name, _, file in (argument.partition("=") for argument in sys.argv[1:])
}
if not given or given.keys() - {one.name for one in modalities}:
    sys.exit(f"usage: python {sys.argv[0]} " + " ".join(f"{one.name}={one.name}.npy" for one in modalities))
rows = len(next(iter(given.values())))
inputs = {one.name: given.get(one.name, np.zeros((rows, one.shape[1]))).astype(np.float32) for one in modalities}
inputs[mask.name] = np.tile([one.name in given for one in modalities], (rows, 1))
for row in model.run(None, inputs)[0]:  # probabilities; NaN for a row that cannot be answered
    print("no answer" if np.isnan(row).any() else f"{classes[row.argmax()]} {row.max():.4f}")
