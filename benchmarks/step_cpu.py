"""Median CPU time of a training step in milliseconds, before and after the onset of the terms beyond the paper."""

import sys
import time

import torch

from benchmarks.step import digits, stack
from trainer.data.machine_memory import prepare_memory
from trainer.settings.recommended import recommended
from trainer.settings.run_settings import build
from trainer.training import step as steps


def median(numbers: range) -> float:
    seconds = []
    for number in numbers:
        begun = time.process_time()
        step(number)
        seconds.append(time.process_time() - begun)
    return 1000 * sorted(seconds)[len(seconds) // 2]


preset, precision = sys.argv[1:]
torch.set_num_threads(1)
prepare_memory()
data = digits(1, torch.device("cpu"))
if preset == "paper":
    (settings,) = stack(1, precision)
else:
    values = recommended("sshmvae-kl", 60_000, data.modalities) | {"precision": precision}
    settings = build({**values, "model": "sshmvae-kl", "data": "random", "labels": 100, "beta": 0.1, "seed": 0})
# The graph of random rows says nothing, and takes minutes.
setattr(steps, "propagated_labels", lambda *_: torch.full((1, 60_000, 10), 0.1))  # noqa: B010
step = steps.Step([settings], data, torch.device("cpu"))
median(range(2))
print(f"{median(range(2, 10)):.0f}", end="")
if preset == "recommended":
    last = step.batches.per_epoch * settings.epochs
    median(range(last - 40, last - 38))
    print(f" and {median(range(last - 38, last - 32)):.0f}", end="")
print()
