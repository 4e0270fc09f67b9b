"""Latency of one frame: an encoder from picture files to features, over the bare forward pass of its network.

    python -m benchmarks.encode [--backbone vgg16] [--threads 1] [--device cpu|cuda] [--rounds 20] [--out ...]

The bare pass is the same network, up to the layer that is taken, on one tensor that is on the device already. The
encoder gets a picture of 640 x 480, as a PNG file or as an array, fills the holes of depth, encodes, resizes and
normalises it, and fetches the result. Weights are random: the time of the arithmetic does not depend on them. The three
are measured in turn.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.measure import Rows, in_turn
from pipeline.datasets.pictures import read_colour, read_depth
from pipeline.features.backbones import Backbone, make_network, trunk
from pipeline.features.encoder import Encoder
from pipeline.features.extraction import forward
from pipeline.features.weights import Weights
from pipeline.images.store import MODALITIES, ImageModality, ImageSettings
from pipeline.runtime.devices import choose_device

HEIGHT, WIDTH = 480, 640


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
    backbone = Backbone.named(options.backbone)
    rows = Rows("encode", device)
    network, width = trunk(backbone, make_network(backbone, Weights("random"), 2, 0, device))
    network.eval()
    with tempfile.TemporaryDirectory(prefix="mmssl-") as name:
        for modality in MODALITIES:
            path = picture(Path(name), modality)
            encoder = Encoder.of(network, width, backbone, modality, ImageSettings(size=options.size))
            array = read_colour(path) if modality == "rgb" else read_depth(path)
            shape = (1, options.size, options.size, 3)
            pixels = backbone.input(torch.zeros(shape, dtype=torch.uint8, device=device))

            def bare(pixels: torch.Tensor = pixels) -> None:
                with torch.inference_mode():
                    forward(network, lambda given: given, pixels)

            def from_file(encoder: Encoder = encoder, path: Path = path) -> None:
                encoder([path])

            def from_array(encoder: Encoder = encoder, array: NDArray[Any] = array) -> None:
                encoder([array])

            seconds = in_turn({"bare": bare, "file": from_file, "array": from_array}, device, options.rounds)
            for source in ("file", "array"):
                ratios = [b / a for a, b in zip(seconds["bare"], seconds[source], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                rows.add(f"{backbone.name}, one {modality} {source} / the bare forward pass", middle, "<= 1.15",
                         quartiles=[round(low, 3), round(high, 3)], threads=options.threads, rounds=options.rounds,
                         encoder_ms=round(1e3 * statistics.median(seconds[source]), 1),
                         bare_ms=round(1e3 * statistics.median(seconds["bare"]), 1),
                         load=round(os.getloadavg()[0], 1))  # fmt: skip
    rows.write(options.out)


def picture(folder: Path, modality: ImageModality) -> Path:
    """A smooth picture of a camera's size; of depth, a tenth is missing, in patches."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((HEIGHT, WIDTH, 3)), (8, 8, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    path = folder / f"{modality}.png"
    if modality == "rgb":
        Image.fromarray((smooth * 255).astype(np.uint8)).save(path)
        return path
    depth = (500 + 3000 * smooth[..., 0]).astype(np.uint16)
    depth[smooth[..., 1] < np.quantile(smooth[..., 1], 0.1)] = 0
    Image.fromarray(depth).save(path)
    return path


if __name__ == "__main__":
    main()
