"""Speed of extraction: the time of one task, from image store to feature file, over that of its bare forward passes.

    python -m benchmarks.extract [--device cpu|cuda] [--threads 2] [--images 256] [--size 64] [--rounds 3] [--out ...]

A bare pass is the same network, up to fc1, on a batch that is already on the device, once for each batch of the task.
The task also reads, checks, copies, normalises, fetches and writes. The two are measured in turn.
On CUDA also: images per second of fine-tuning and of extraction, and their share of the card's measured matrix rate.
"""

import argparse
import logging
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Rows, middle, wait
from pipeline.features import vgg
from pipeline.features.fine_tuning import FeatureSettings, fine_tune
from pipeline.features.split_modality import ExtractionTask, compute
from pipeline.features.weights import Weights
from pipeline.images.store import Entry, ImageSettings, ImageStore, ObjectImages, StoreIndex, object_path, write_object
from pipeline.runtime.devices import choose_device

CLASSES = 51
PER_OBJECT = 140  # images
PRODUCT = 8192  # rows and columns of the matrices
PRODUCTS = 20  # products that are timed


class Clock(NamedTuple):
    """Wall and processor time in seconds; the latter is of all threads and hardly depends on the machine's load."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: "Clock") -> "Clock":
        return Clock(self.wall - other.wall, self.processor - other.processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--images", type=int, default=256, help="number of images")
    parser.add_argument("--size", type=int, default=64, help="width and height of the images, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    device = choose_device(options.device)
    rows = Rows("extract", device)
    with tempfile.TemporaryDirectory(prefix="mmssl-") as name:
        scratch = Path(name)
        store = random_store(scratch / "images", options.images, options.size)
        against_bare_passes(rows, scratch, store, device, options.rounds)
        if device.type == "cuda":
            fine_tuning(rows, scratch, store, device)
    rows.write(options.out)


def random_store(folder: Path, count: int, size: int) -> ImageStore:
    """A store of random images; the time of the arithmetic does not depend on their content."""
    settings, rng, entries = ImageSettings(size=size), np.random.default_rng(0), {}
    for first in range(0, count, PER_OBJECT):
        name, rows = f"cup_{first // PER_OBJECT + 1}", min(PER_OBJECT, count - first)
        ids = tuple(f"{name}_1_{1 + 5 * k}" for k in range(rows))
        rgb = rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8)
        images = ObjectImages(name, ids, rgb, rgb, {}, {})
        entries[name] = Entry(ids=ids, digest=write_object(object_path(folder, name), images, settings, "").digest)
    index = StoreIndex(dataset="random", source={}, settings=settings, versions=(), trials=(), objects=entries,
                       skipped={}, flawed={})  # fmt: skip
    return ImageStore.finish(folder, index)


def against_bare_passes(rows: Rows, scratch: Path, store: ImageStore, device: torch.device, rounds: int) -> None:
    """Measures a task against its bare forward passes."""
    settings = FeatureSettings(epochs=0)
    count, batch = len(store.ids), settings.extract_batch
    task = ExtractionTask(store.folder, scratch / "unit.h5", 0, "rgb", CLASSES, (), np.zeros(0, np.int64), settings,
                          Weights("random"), device.type, {})  # fmt: skip
    network = vgg.make_network(task.weights, CLASSES, 0, device).eval()
    first = next(store.blocks("rgb"))
    pixels = torch.from_numpy(np.concatenate([first] * -(-batch // len(first)))[:batch]).to(device)
    pixels = vgg.normalise(pixels)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            grid = network.avgpool(network.features(images))
            fc1: torch.Tensor = network.classifier[:2](torch.flatten(grid, 1)).float()
            return fc1

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, count, batch):
                forward(pixels[: min(batch, count - start)])
        wait(device)

    batch_starts: list[Clock] = []

    def run_task() -> None:
        task.path.unlink(missing_ok=True)
        batch_starts.clear()
        compute(task, lambda: batch_starts.append(Clock.now()))  # called before each batch, once the network is built

    bare()
    build_times, bare_times, task_times = [], [], []
    for _ in range(rounds):
        start = Clock.now()
        bare()
        bare_times.append(Clock.now() - start)
        start = Clock.now()
        run_task()
        task_times.append(Clock.now() - batch_starts[0])
        build_times.append((batch_starts[0] - start).wall)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        forward(pixels[:1])
    ratios = [a.wall / b.wall for a, b in zip(task_times, bare_times, strict=True)]
    processor_ratios = [a.processor / b.processor for a, b in zip(task_times, bare_times, strict=True)]
    seconds = middle([clock.wall for clock in task_times])
    rows.add("extraction / the bare forward passes", middle(ratios), "<= 1.1",
             rounds=[round(ratio, 3) for ratio in ratios], processor_time=round(middle(processor_ratios), 3),
             images=count, size=store.index.settings.size, batch=batch, images_per_second=round(count / seconds, 1),
             seconds_to_build_the_network=round(middle(build_times), 2), load=round(os.getloadavg()[0], 1))  # fmt: skip
    if device.type == "cuda":
        rate = counter.get_total_flops() * count / seconds
        rows.add("features: share of the card's matrix rate", rate / matrix_rate(device))


def fine_tuning(rows: Rows, scratch: Path, store: ImageStore, device: torch.device) -> None:
    """Measures epochs of fine-tuning one after the other, so that the median leaves out the slow first ones."""
    settings = FeatureSettings(epochs=6)
    network = vgg.make_network(Weights("random"), CLASSES, 0, device)
    images = store.images("rgb", store.ids)
    labels = np.arange(len(images)) % CLASSES
    ends: list[float] = []

    def report(done: int, total: int, _: str) -> None:
        if done % (total // settings.epochs) == 0:
            wait(device)
            ends.append(time.perf_counter())

    fine_tune(network, images, labels, settings, (0, "rgb"), scratch / "none", {}, report=report)
    seconds = middle([b - a for a, b in pairwise(ends)])
    with FlopCounterMode(display=False) as counter:
        network(vgg.normalise(torch.from_numpy(images[:1]).to(device))).sum().backward()
    rate = counter.get_total_flops() * len(images) / seconds
    rows.add("fine-tuning, images a second", len(images) / seconds, batch=settings.batch_size,
             share_of_matrix_rate=round(rate / matrix_rate(device), 4))  # fmt: skip


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a large bfloat16 matrix product."""
    with torch.autocast("cuda", torch.bfloat16):
        size = PRODUCT
        a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        seconds = []
        for _ in range(PRODUCTS):
            wait(device)
            start = time.perf_counter()
            torch.mm(a, b)
            wait(device)
            seconds.append(time.perf_counter() - start)
    return 2 * size**3 / middle(seconds)


if __name__ == "__main__":
    main()
