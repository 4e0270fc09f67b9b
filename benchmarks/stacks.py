"""Time of a training step per replica on a CPU, by the number of replicas in a stack.

    python -m benchmarks.stacks [--threads 1] [--precision fp32] [--replicas 1,2,4,8] [--only hm-digits] [--out FILE]

SS-HMVAE-kl in the shapes of the data sets that it is trained on, on random values; the steps before the onset of the
terms beyond the paper, without propagated labels. Candidates take turns. Start two processes at once, with one thread
each, to see what `--jobs 2` gives.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Rows, in_turn, middle, spread
from benchmarks.random_examples import random_examples
from pipeline.shards.shard import Modality
from trainer.data.machine_memory import prepare_memory
from trainer.settings.names import RECOMMENDED
from trainer.settings.presets import preset_values
from trainer.settings.recommended import recommended
from trainer.settings.run_settings import build
from trainer.settings.widths import hidden_units
from trainer.training.step import Step

MODEL = "sshmvae-kl"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shape:
    """What decides the size of a step: the data's and the preset."""

    rows: int
    labelled: int
    modalities: tuple[Modality, ...]
    classes: int
    preset: str


SHAPES = {
    "hm-digits, recommended": Shape(
        1437, 100, (Modality("x", 32, "bernoulli"), Modality("w", 32, "bernoulli")), 10, RECOMMENDED
    ),
    "hm-digits, paper": Shape(
        1437, 100, (Modality("x", 32, "bernoulli"), Modality("w", 32, "bernoulli")), 10, "digits"
    ),
    "sample, paper": Shape(
        1440, 360, (Modality("rgb", 4096, "nonnegative"), Modality("depth", 4096, "nonnegative")), 20, "sample"
    ),
    "Washington, paper": Shape(
        6000, 300, (Modality("rgb", 4096, "nonnegative"), Modality("depth", 4096, "nonnegative")), 51, "rgbd"
    ),
    "hmMNIST, paper": Shape(6000, 100, (Modality("x", 392, "bernoulli"), Modality("w", 392, "bernoulli")), 10, "mnist"),
}


def stepper(shape: Shape, replicas: int, precision: str) -> tuple[Callable[[], None], int]:
    """Takes training steps, one per call; and the units of the widest hidden layer."""
    fixed: dict[str, Any] = {"model": MODEL, "data": "random", "precision": precision, "beta": 0.1}
    if shape.preset == RECOMMENDED:
        # The graph of random rows says nothing.
        values = {**recommended(MODEL, shape.rows, shape.modalities), "labels": shape.labelled, "propagation": 0.0}
    else:
        values = {**preset_values(shape.preset, MODEL), "labels": shape.labelled}
    settings = [build({**values, **fixed, "seed": seed}) for seed in range(replicas)]
    data = random_examples(
        shape.modalities, shape.classes, rows=shape.rows, labelled=shape.labelled, test=200, replicas=replicas,
        device=CPU,
    )  # fmt: skip
    step = Step(settings, data, CPU)
    number = iter(range(10**9))
    return lambda: step(next(number)), max(hidden_units(settings[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--precision", default="fp32", help="fp32 or bf16")
    parser.add_argument("--replicas", default="1,2,4,8", help="numbers of replicas to compare")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    parser.add_argument("--rounds", type=int, default=5, help="number of turns per candidate")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prepare_memory()
    rows = Rows("stacks", CPU)
    for name, shape in SHAPES.items():
        if options.only not in name:
            continue
        candidates: dict[str, Callable[[], None]] = {}
        for replicas in map(int, options.replicas.split(",")):
            candidates[str(replicas)], units = stepper(shape, replicas, options.precision)
        seconds = in_turn(candidates, CPU, options.rounds, warm_up=1)
        for replicas_, values in seconds.items():
            rows.add(f"milliseconds a step and replica: {name}, R = {replicas_}", 1e3 * middle(values) / int(replicas_),
                     units=units, threads=options.threads, precision=options.precision,
                     spread=round(spread(values), 3))  # fmt: skip
    rows.write(options.out)


if __name__ == "__main__":
    main()
