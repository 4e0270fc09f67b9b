"""What training spends beside its updates: reading rows, evaluating and recording after each epoch, saving.

    python -m benchmarks.epoch hm-digits [--epochs 5] [--preset paper] [--model ssmvae] [--set precision=bf16]

Shares of the processor's time from the first step to the last checkpoint, on one thread, so that other work on the
machine counts as little as possible.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.measure import Rows
from pipeline.datasets.resolve import open_shards
from pipeline.runtime.failures import Failures
from trainer.data.resident import Resident
from trainer.jobs.plan import plan
from trainer.jobs.train import train_all
from trainer.settings.sources import merged, read_assignments
from trainer.training import loop, step
from trainer.training.batches import Batches
from trainer.training.progress import Silent

PARTS: dict[str, list[tuple[Any, str]]] = {
    "reading rows": [(Batches, "load"), (Resident, "x"), (Resident, "y"), (Resident, "training_rows")],
    "evaluating and recording": [(loop, "record")],
    "saving": [(loop, "save")],
}


@contextmanager
def counted(seconds: dict[str, float]) -> Iterator[None]:
    """A context in which the processor's time within each part and within each update is added up.

    What is read while a model is evaluated counts as evaluating.
    """
    kept = [(owner, name, getattr(owner, name)) for places in PARTS.values() for owner, name in places]
    kept.append((step.Step, "_update", step.Step._update))
    part_of = {name: part for part, places in PARTS.items() for _, name in places} | {"_update": "updates"}
    within: list[str] = []

    def timed(call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            if within and within[-1] != "updates":
                return call(*args, **options)
            within.append(part)
            begun = time.process_time()
            try:
                return call(*args, **options)
            finally:
                taken = time.process_time() - begun
                within.pop()
                seconds[part] += taken
                if within:
                    seconds[within[-1]] -= taken

        return wrapper

    try:
        for owner, name, call in kept:
            setattr(owner, name, timed(call, part_of[name]))
        yield
    finally:
        for owner, name, call in kept:
            setattr(owner, name, call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set or a shard")
    parser.add_argument("--model", default="sshmvae-kl")
    parser.add_argument("--preset", default="recommended")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--root", type=Path, default=Path("workspace"))
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    fixed = {} if options.epochs is None else {"epochs": options.epochs}
    values = merged(fixed, read_assignments(options.set))
    (shard,) = open_shards(options.data, [], options.root, Failures())
    (job,) = plan(options.model, [shard], preset=options.preset, values=values)
    seconds: dict[str, float] = defaultdict(float)
    with TemporaryDirectory() as folder, counted(seconds):
        train_all([job], [Path(folder) / "run"], device, Silent())
    rows, total = Rows("epoch", device), sum(seconds.values())
    named = {"data": options.data, "model": options.model, "preset": options.preset, "epochs": job.settings.epochs}
    for part in ("updates", *PARTS):
        rows.add(f"{part} / all", seconds[part] / total, seconds=round(seconds[part], 4), **named)
    overhead = (seconds["reading rows"] + seconds["evaluating and recording"]) / total
    rows.add("reading, evaluating and recording / all", overhead, "< 0.05", **named)
    rows.write(options.out)


if __name__ == "__main__":
    main()
