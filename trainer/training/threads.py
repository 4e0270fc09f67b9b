"""How many threads training takes on a CPU.

Layers of 128 units are too little work for two threads, which wait for each other: training took 1.4 times as long on
free cores, and many times as long where other processes used them (results/2026-11-27-rivals/README.md). Between 128
and 512 units nothing was measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.runtime.machine import threads_asked
from trainer.settings.run_settings import Settings
from trainer.training.precision import WIDE, hidden_units


@contextmanager
def threads(settings: Settings, device: torch.device) -> Iterator[None]:
    """A context in which narrow networks are trained by one thread on a CPU, unless OMP_NUM_THREADS says how many."""
    before = torch.get_num_threads()
    if device.type == "cpu" and not threads_asked() and max(hidden_units(settings), default=WIDE) < WIDE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
