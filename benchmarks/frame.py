"""Latency of one frame, all the way: two picture files to probabilities, over the bare passes of the two backbones.

    python -m benchmarks.frame [--backbone vgg16] [--threads 1] [--device cpu] [--rounds 20] [--out ...]

A bundle with an encoder for each camera is written and opened by `mmssl.load`. The bare passes are those of the
backbone, up to the layer that is taken, on one tensor that is on the device already, once for each camera. Weights are
random and the classifier has had one epoch: the time of the arithmetic does not depend on them. All are measured in
turn.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmssl
from benchmarks.encode import picture
from benchmarks.measure import Rows, in_turn
from pipeline.features.backbones import Backbone, make_network, trunk
from pipeline.features.encoder import Encoder
from pipeline.features.extraction import forward
from pipeline.features.weights import Weights
from pipeline.images.store import MODALITIES, ImageSettings
from pipeline.runtime.devices import choose_device
from pipeline.shards.schema import Modality
from pipeline.shards.writing import PartData, write_shard
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather
from trainer.inference.loaded_model import LoadedModel

GOAL, CLASSES = "<= 1.15", 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vgg16", help="torchvision's name of the network")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--size", type=int, default=148, help="width and height of a prepared image, in pixels")
    parser.add_argument("--rounds", type=int, default=20, help="number of measurements")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    rows = Rows("frame", device)
    with tempfile.TemporaryDirectory(prefix="mmssl-") as name:
        folder = Path(name)
        model, bare = make(folder, options.backbone, options.size, device)
        frame = {str(modality): [picture(folder, modality)] for modality in MODALITIES}
        candidates: dict[str, Callable[[], object]] = {
            "bare": bare,
            "probabilities": lambda: model.predict_proba(frame),
            "everything": lambda: model.predictions(frame),
        }
        for camera in MODALITIES:
            model.encoder(camera)  # opened when it is first used
        seconds = in_turn(candidates, device, options.rounds)
    for what in ("probabilities", "everything"):
        ratios = [b / a for a, b in zip(seconds["bare"], seconds[what], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.add(f"one frame to {what} / the bare passes of two {options.backbone}", middle, GOAL,
                 quartiles=[round(low, 3), round(high, 3)], threads=options.threads, rounds=options.rounds,
                 frame_ms=round(1e3 * statistics.median(seconds[what]), 1),
                 bare_ms=round(1e3 * statistics.median(seconds["bare"]), 1),
                 load=round(os.getloadavg()[0], 1))  # fmt: skip
    rows.write(options.out)


def make(folder: Path, backbone_name: str, size: int, device: torch.device) -> tuple[LoadedModel, Callable[[], None]]:
    """A bundle as it is loaded, and the bare passes of both backbones."""
    backbone = Backbone.named(backbone_name)
    network, width = trunk(backbone, make_network(backbone, Weights("random"), 2, 0, device))
    network.eval()
    files: dict[str, Path] = {}
    recipes: dict[str, dict[str, Any]] = {}
    for camera in MODALITIES:
        encoder = Encoder.of(network, width, backbone, camera, ImageSettings(size=size))
        files[camera], recipes[camera] = folder / f"{camera}.safetensors", encoder.recipe
        encoder.save(files[camera])
    rng = np.random.default_rng(0)

    def part(name: str, rows: int) -> PartData:
        features = {str(camera): rng.random((rows, width), np.float32) for camera in MODALITIES}
        return PartData(features, np.arange(rows) % CLASSES, [f"{name}-{row}" for row in range(rows)])

    shard = write_shard(
        folder / "shard.h5",
        dataset="noise",
        classes=[f"class {k}" for k in range(CLASSES)],
        modalities=[Modality(camera, width, "nonnegative") for camera in MODALITIES],
        train=part("train", 1000),
        test=part("test", 100),
        encoders=recipes,
    )
    (run,) = mmssl.train("sshmvae-kl", shard, out=folder / "runs", device=str(device), epochs=1, labels=100)
    write_bundle(gather([run], shard=shard, encoders=files), folder / "model")
    pixels = backbone.input(torch.zeros((1, size, size, 3), dtype=torch.uint8, device=device))

    def bare() -> None:
        with torch.inference_mode():
            for _ in MODALITIES:
                forward(network, lambda given: given, pixels)

    return mmssl.load(folder / "model", device=str(device)), bare


if __name__ == "__main__":
    main()
