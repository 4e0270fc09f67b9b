"""What it costs to train from disk, as ratios measured in one run, and how much memory it takes.

    python -m benchmarks.stream [--limit 128MB] [--threads 1] [--rounds 5] [--out workspace/stream.jsonl]

1. The time of sshmvae-kl steps (preset rgbd) whose rows are streamed from a shard on disk, over that of the same steps
   with all rows in memory; in wall time, and in processor time of all threads, which depends less on the machine's
   load. A turn takes as many steps as use up one window, so that each turn of the streamed steps also reads a window.
   The file cache is warm.
2. The time to read all rows of an epoch through the windows, without any training.
3. The peak resident memory of a process that streams an epoch, minus that of one with a small shard in memory.

The shard has random non-negative features in the shape of RGB-D: 35,000 training rows, two modalities of width 4,096.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Rows, spread, wait
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from trainer.data import resident
from trainer.data.machine_memory import prepare_memory
from trainer.data.memory_limit import parse_size
from trainer.data.streaming import Streamed, load
from trainer.data.windows import WindowedStream
from trainer.jobs.plan import plan
from trainer.training.precision import precision
from trainer.training.step import Step

ROWS, TEST, FEW, WIDTH, CLASSES = 35_000, 1_000, 2_000, 4096, 51
BLOCK = 512  # rows that are generated at a time
LABELLED_EVERY = 20  # one row in so many is labelled
ROW_BYTES = 8 * WIDTH  # two modalities of float32


def random_shard(path: Path, rows: int) -> Shard:
    """Random examples in the shape of RGB-D, a twentieth of them labelled."""

    def part(name: str, rows: int) -> PartData:
        def blocks(seed: int) -> Iterator[NDArray[np.float32]]:
            rng = np.random.default_rng(seed)
            for start in range(0, rows, BLOCK):
                yield rng.random((min(BLOCK, rows - start), WIDTH), dtype=np.float32)

        return PartData(
            {"x": blocks(0), "w": blocks(1)},
            np.arange(rows) * CLASSES // rows,
            [f"{name}-{row}" for row in range(rows)],
            np.arange(rows) % LABELLED_EVERY == 0 if name == "train" else None,
        )

    modalities = [Modality(name, WIDTH, "nonnegative") for name in "xw"]
    classes = [f"class {k}" for k in range(CLASSES)]
    return write_shard(path, dataset="random", classes=classes, modalities=modalities,
                       train=part("train", rows), test=part("test", TEST))  # fmt: skip


class Stepper:
    """Takes training steps, one after the other."""

    def __init__(self, shard: Shard, limit: str | None, device: torch.device) -> None:
        values = {} if limit is None else {"memory_limit": limit}
        (job,) = plan("sshmvae-kl", [shard], preset="rgbd", values=values | {"precision": "fp32"})
        self.settings = job.settings
        self.data = load([job.settings], [shard], device) if limit else resident.load([job.settings], [shard], device)
        self.step = Step([job.settings], self.data, device)
        self.number = 0

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.step(self.number)
            self.number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--limit", default="128MB", help="memory limit of the streamed steps")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)  # the process whose memory is measured
    parser.add_argument("--in-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prepare_memory()
    device = torch.device(options.device)
    if options.peak_of is not None:
        print(json.dumps(peak(Shard.open(options.peak_of), None if options.in_memory else options.limit, device)))
        return
    rows = Rows("stream", device)
    with tempfile.TemporaryDirectory(prefix="mmssl-stream-") as folder:
        shard = random_shard(Path(folder) / "rgbd-sized.h5", ROWS)
        few = random_shard(Path(folder) / "few.h5", FEW)
        memory(rows, shard, few, options.limit)
        speed(rows, shard, options.limit, device, options.rounds)
    rows.write(options.out)


def speed(rows: Rows, shard: Shard, limit: str, device: torch.device, rounds: int) -> None:
    """Measures 1 and 2."""
    steppers = {"memory": Stepper(shard, None, device), "disk": Stepper(shard, limit, device)}
    data = steppers["disk"].data
    assert isinstance(data, Streamed), "the shard is larger than the limit"
    layout, per_epoch = data.feeds[0].layout, steppers["disk"].step.batches.per_epoch
    steps = -(-per_epoch // layout.per_pass)
    clock: dict[str, list[float]] = {name: [] for name in steppers}
    processor: dict[str, list[float]] = {name: [] for name in steppers}
    with precision(steppers["disk"].settings, device):
        for turn in range(rounds + 1):  # the first one warms up
            for name, stepper in steppers.items():
                wait(device)
                start = time.perf_counter(), time.process_time()
                stepper(steps)
                wait(device)
                if turn:
                    clock[name].append(time.perf_counter() - start[0])
                    processor[name].append(time.process_time() - start[1])
    start_of_reading = time.perf_counter()
    for number in range(per_epoch):
        steppers["disk"].step.batches.load(per_epoch + number)
    reading = time.perf_counter() - start_of_reading
    data.close()
    middle = {name: statistics.median(values) for name, values in clock.items()}
    busy = {name: statistics.median(values) for name, values in processor.items()}
    rows.add("a step from disk / a step in memory, by the clock", middle["disk"] / middle["memory"], "<= 1.15",
             seconds={name: round(value / steps, 3) for name, value in middle.items()},
             spreads={name: f"{100 * spread(values):.1f} %" for name, values in clock.items()},
             limit=limit, window=layout.size, windows_an_epoch=layout.per_pass, steps_a_turn=steps,
             rounds=rounds)  # fmt: skip
    rows.add("a step from disk / a step in memory, in processor time", busy["disk"] / busy["memory"], "<= 1.15",
             seconds={name: round(value / steps, 3) for name, value in busy.items()},
             spreads={name: f"{100 * spread(values):.1f} %" for name, values in processor.items()})  # fmt: skip
    size = ROW_BYTES * ROWS
    rows.add("seconds to read an epoch's rows, nothing learned", reading, gigabytes=round(size / 1e9, 2),
             share_of_an_epoch_in_memory=round(reading / (middle["memory"] / steps * per_epoch), 4))  # fmt: skip


def peak(shard: Shard, limit: str | None, device: torch.device) -> dict[str, int]:
    """Bytes of peak memory after three steps (and an epoch's rows, if streamed), and of the features in memory."""
    stepper = Stepper(shard, limit, device)
    stepper(3)
    if isinstance(stepper.step.batches.unlabelled[0], WindowedStream):
        for number in range(3, stepper.step.batches.per_epoch):
            stepper.step.batches.load(number)
    for _ in stepper.data.test_batches(1000):
        pass
    stepper.data.close()
    kept = sum(4 * feature.numel() for feature in stepper.data.features.values())
    return {"peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "kept": kept}


def memory(rows: Rows, shard: Shard, few: Shard, limit: str) -> None:
    """Measures 3, each in a process of its own."""

    def child(path: Path, *more: str) -> dict[str, int]:
        command = [sys.executable, "-m", "benchmarks.stream", "--peak-of", str(path), "--limit", limit, *more]
        sizes: dict[str, int] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return sizes

    streamed, small = child(shard.path), child(few.path, "--in-memory")
    model = small["peak"] - small["kept"]
    rows.add("memory beside the model's own / the limit", (streamed["peak"] - model) / parse_size(limit), "<= 1",
             megabytes={"peak": streamed["peak"] // 10**6, "model": model // 10**6,
                        "shard": ROW_BYTES * (ROWS + TEST) // 10**6})  # fmt: skip


if __name__ == "__main__":
    main()
