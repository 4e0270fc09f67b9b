"""Preprocessing on a Dask cluster of one, two and three workers, compared with one process on the same machine.

    python -m benchmarks.cluster [--data FOLDER] [--frames 1400] [--rounds 3] [--workers 1,2,3] [--out F]

The frames are rendered, or taken from --data. The workers are processes on this machine with one thread each, started
before the clock; they share the workspace folder. Every round measures each number of workers once.
"""

import argparse
import logging
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from distributed import Client, LocalCluster

from benchmarks.frames import link, raw_frames
from benchmarks.measure import Rows, middle
from pipeline.images.preprocess import preprocess
from pipeline.images.store import ImageSettings
from pipeline.runtime.machine import cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in the official layout (default: rendered frames)")
    parser.add_argument("--frames", type=int, default=1400, help="number of frames")
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements")
    parser.add_argument("--workers", default="1,2,3", help="cluster sizes to measure")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # no warnings about how few frames there are
    rows = Rows("cluster", torch.device("cpu"))
    numbers = [int(number) for number in options.workers.split(",")]
    with tempfile.TemporaryDirectory(prefix="mmssl-") as name, ExitStack() as stack:
        root, few = Path(name) / "work", Path(name) / "few"
        source = raw_frames(options.data, Path(name))
        count = len(link(source, root, options.frames))
        link(source, few, 2)
        rows.base |= {"frames": str(options.data or "rendered"), "count": count, "cores": cores()}
        clusters = {number: stack.enter_context(cluster(number)) for number in numbers}
        for number in numbers:
            with Client(clusters[number]) as client:  # type: ignore[no-untyped-call]
                client.run(warm, few)  # imports, on every worker
        alone: list[float] = []
        on_cluster: dict[int, list[float]] = {number: [] for number in numbers}
        for _ in range(options.rounds):
            alone.append(timed(root, None))
            for number in numbers:
                on_cluster[number].append(timed(root, clusters[number].scheduler_address))
        load = round(os.getloadavg()[0], 1)
        rows.add("one process, seconds", middle(alone), "", rounds=[round(value, 2) for value in alone], load=load)
        for number, seconds in on_cluster.items():
            gain = middle([one / many for one, many in zip(alone, seconds, strict=True)])
            rows.add(f"a cluster of {number}, seconds", middle(seconds), "", load=load,
                     rounds=[round(value, 2) for value in seconds], times_one_process=round(gain, 2))  # fmt: skip
    rows.write(options.out)


def cluster(number: int) -> Any:
    """A Dask cluster of this many single-threaded worker processes."""
    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=number, threads_per_worker=1, memory_limit=0, dashboard_address=":0", silence_logs=logging.CRITICAL
    )


def warm(root: Path) -> None:
    """Processes the frames once, without writing, so that everything is imported."""
    from pipeline.datasets.washington_index import index_dataset
    from pipeline.images.building import process_object

    for (name, number), frames in index_dataset(root / "raw").objects.items():
        process_object(f"{name}_{number}", frames, ImageSettings(), False)


def timed(root: Path, scheduler: str | None) -> float:
    """The seconds it takes to build the image store from scratch."""
    shutil.rmtree(root / "images", ignore_errors=True)
    start = time.perf_counter()
    preprocess("rgbd", root, ImageSettings(), workers=None if scheduler else 1, scheduler=scheduler)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
