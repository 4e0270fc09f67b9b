"""Speed of preprocessing, as ratios taken in one run; the frames are rendered, or those of --data.

    python -m benchmarks.preprocess [--data FOLDER] [--frames 1400] [--rounds 3] [--sizes 500,5000] [--out F]

1. Time per frame of `preprocess` in one process over merely decoding the frame's two PNG files with the same library
   (Pillow), in turns. Processor time of the one thread at work, which a busy machine hardly changes; wall time apart.
2. One process's wall time over that of two worker processes, once these are up; what it takes to bring them up, apart.
3. Time and memory per frame at growing sizes (500 and 20,000 frames, say): each in a process of its own.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder in the official layout")
    parser.add_argument("--frames", type=int, default=1400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="500,5000", help="for 3, in frames")
    parser.add_argument("--parts", default="1,2,3", help="which of the three")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # that the frames are few is no news here
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
    for frame in frames:
        for path in (frame.rgb, frame.depth):
            with Image.open(path) as image:
                image.load()


def mean_size(frames: Sequence[Frame]) -> int:
    sizes = []
    for frame in frames[:200]:
        with Image.open(frame.rgb) as image:
            sizes.append(image.width * image.height)
    return round(sum(sizes) / len(sizes))


def make(root: Path, workers: int) -> None:
    """The store from nothing."""
    shutil.rmtree(root / "images", ignore_errors=True)
    preprocess("rgbd", root, ImageSettings(), workers=workers)


def timed(call: Callable[[], None]) -> tuple[float, float]:
    """(wall, processor) seconds; those of this process alone."""
    wall, own = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - own


def against_decoding(rows: Rows, root: Path, frames: Sequence[Frame], rounds: int) -> None:
    decode(frames)
    decoding, whole = [], []
    for _ in range(rounds):
        decoding.append(timed(lambda: decode(frames)))
        whole.append(timed(lambda: make(root, 1)))
    own = [w[1] / d[1] for w, d in zip(whole, decoding, strict=True)]
    wall = [w[0] / d[0] for w, d in zip(whole, decoding, strict=True)]
    rows.add("preprocess / decoding the two PNG files, one process", middle(own), "<= 2.5",
             rounds=[round(value, 2) for value in own], wall=round(middle(wall), 2), count=len(frames),
             ms_per_frame=round(1e3 * middle([w[1] for w in whole]) / len(frames), 2),
             decoding_ms=round(1e3 * middle([d[1] for d in decoding]) / len(frames), 2))  # fmt: skip


def two_workers(rows: Rows, root: Path, source: Path, rounds: int) -> None:
    few = root.with_name("few")
    link(source, few, 2)  # of one object; and one of another, so that there is work for two processes
    place = few / "raw" / "rgbd-dataset" / "cup"
    shutil.copytree(place / "cup_1", place / "cup_2", symlinks=True)
    for path in (place / "cup_2").iterdir():
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


# Nothing is imported that preprocessing itself does not need: the memory is that of the command.
ALONE = """
import json, sys, time
from pathlib import Path
from pipeline.images.store import ImageSettings
from pipeline.images.preprocess import preprocess
wall, own = time.perf_counter(), time.process_time()
preprocess("rgbd", Path(sys.argv[1]), ImageSettings(), workers=1)
wall, own = time.perf_counter() - wall, time.process_time() - own
with open("/proc/self/status") as status:  # getrusage's peak would count what the parent held when it started us
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps([wall, own, peak]))
"""


def growing(rows: Rows, scratch: Path, source: Path, sizes: Sequence[int]) -> None:
    for size in sizes:
        root = scratch / f"size-{size}"
        count = len(link(source, root, size))
        command = [sys.executable, "-c", ALONE, str(root)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        wall, own, peak = json.loads(done.stdout)
        shutil.rmtree(root)
        rows.add(f"preprocess, ms per frame of {count:,}", 1e3 * own / count, "constant",
                 wall_ms=round(1e3 * wall / count, 2), peak_mb=round(peak))  # fmt: skip


if __name__ == "__main__":
    main()
