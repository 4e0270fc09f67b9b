"""Speed of preprocessing, as ratios measured in one run; the frames are rendered, or taken from --data.

    python -m benchmarks.preprocess [--data FOLDER] [--frames 1400] [--rounds 3] [--sizes 500,5000] [--out F]

1. The time per frame of `preprocess` in one process over the time of merely decoding the frame's two PNG files with the
   same library (Pillow), measured in turn; in processor time, which hardly depends on the machine's load. Wall time is
   reported separately.
2. The wall time of one process over that of two worker processes, without the time to start these, which is reported
   separately.
3. Time and memory per frame at growing numbers of frames (500 and 20,000, say), each in a process of its own.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from benchmarks.frames import link, raw_frames
from benchmarks.measure import Rows, middle
from pipeline.datasets.washington import Frame
from pipeline.images.preprocess import preprocess
from pipeline.images.store import ImageSettings

SIZED_FRAMES = 200  # frames from which the mean size of a crop is estimated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in the official layout (default: rendered frames)")
    parser.add_argument("--frames", type=int, default=1400, help="number of frames for 1 and 2")
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements for 1 and 2")
    parser.add_argument("--sizes", default="500,5000", help="numbers of frames for 3")
    parser.add_argument("--parts", default="1,2,3", help="which of the three to measure")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # no warnings about how few frames there are
    rows = Rows("preprocess", torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="mmssl-") as name:
        scratch = Path(name)
        source = raw_frames(options.data, scratch)
        frames = link(source, scratch / "work", options.frames)
        rows.base |= {"frames": str(options.data or "rendered"), "pixels of a crop": mean_size(frames)}
        if "1" in options.parts:
            against_decoding(rows, scratch / "work", frames, options.rounds)
        if "2" in options.parts:
            two_workers(rows, scratch / "work", source, options.rounds)
        if "3" in options.parts:
            growing(rows, scratch, source, [int(size) for size in options.sizes.split(",")])
    rows.write(options.out)


def decode(frames: Sequence[Frame]) -> None:
    """Decodes both PNG files of every frame."""
    for frame in frames:
        for path in (frame.rgb, frame.depth):
            with Image.open(path) as image:
                image.load()


def mean_size(frames: Sequence[Frame]) -> int:
    """The mean number of pixels of a crop."""
    sizes = []
    for frame in frames[:SIZED_FRAMES]:
        with Image.open(frame.rgb) as image:
            sizes.append(image.width * image.height)
    return round(sum(sizes) / len(sizes))


def make(root: Path, workers: int) -> None:
    """Builds the image store from scratch."""
    shutil.rmtree(root / "images", ignore_errors=True)
    preprocess("rgbd", root, ImageSettings(), workers=workers)


def timed(call: Callable[[], None]) -> tuple[float, float]:
    """The (wall, processor) seconds of a call; processor time is of this process alone."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def against_decoding(rows: Rows, root: Path, frames: Sequence[Frame], rounds: int) -> None:
    """Measures preprocessing in one process against decoding."""
    decode(frames)
    decoding, preprocessing = [], []
    for _ in range(rounds):
        decoding.append(timed(lambda: decode(frames)))
        preprocessing.append(timed(lambda: make(root, 1)))
    processor = [p[1] / d[1] for p, d in zip(preprocessing, decoding, strict=True)]
    wall = [p[0] / d[0] for p, d in zip(preprocessing, decoding, strict=True)]
    rows.add("preprocess / decoding the two PNG files, one process", middle(processor), "<= 2.5",
             rounds=[round(value, 2) for value in processor], wall=round(middle(wall), 2), count=len(frames),
             ms_per_frame=round(1e3 * middle([p[1] for p in preprocessing]) / len(frames), 2),
             decoding_ms=round(1e3 * middle([d[1] for d in decoding]) / len(frames), 2))  # fmt: skip


def two_workers(rows: Rows, root: Path, source: Path, rounds: int) -> None:
    """Measures one process against two workers; two small objects show how long the workers take to start."""
    few = root.with_name("few")
    link(source, few, 2)  # frames of one object, which is copied, so that there is work for two processes
    objects = few / "raw" / "rgbd-dataset" / "cup"
    shutil.copytree(objects / "cup_1", objects / "cup_2", symlinks=True)
    for path in (objects / "cup_2").iterdir():
        path.rename(path.with_name(path.name.replace("cup_1", "cup_2", 1)))
    starts, one, two = [], [], []
    for _ in range(rounds):
        starts.append(timed(lambda: make(few, 2))[0])
        one.append(timed(lambda: make(root, 1))[0])
        two.append(timed(lambda: make(root, 2))[0])
    start = middle(starts)
    gains = [a / (b - start) for a, b in zip(one, two, strict=True)]
    rows.add("one process / two worker processes, start-up apart", middle(gains), ">= 1.8",
             rounds=[round(value, 2) for value in gains], startup_seconds=round(start, 2),
             with_startup=round(middle(one) / middle(two), 2), load=round(os.getloadavg()[0], 1))  # fmt: skip


# Imports nothing that preprocessing itself does not need, so that the memory is that of the command.
ALONE = """
import json, sys, time
from pathlib import Path
from pipeline.images.store import ImageSettings
from pipeline.images.preprocess import preprocess
wall, processor = time.perf_counter(), time.process_time()
preprocess("rgbd", Path(sys.argv[1]), ImageSettings(), workers=1)
wall, processor = time.perf_counter() - wall, time.process_time() - processor
with open("/proc/self/status") as status:  # getrusage would include what the parent held when it forked
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps([wall, processor, peak]))
"""


def growing(rows: Rows, scratch: Path, source: Path, sizes: Sequence[int]) -> None:
    """Measures time and memory per frame for each number of frames."""
    for size in sizes:
        root = scratch / f"size-{size}"
        count = len(link(source, root, size))
        command = [sys.executable, "-c", ALONE, str(root)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        wall, processor, peak = json.loads(done.stdout)
        shutil.rmtree(root)
        rows.add(f"preprocess, ms per frame of {count:,}", 1e3 * processor / count, "constant",
                 wall_ms=round(1e3 * wall / count, 2), peak_mb=round(peak))  # fmt: skip


if __name__ == "__main__":
    main()
