"""How many threads training takes on a CPU.

Layers of some hundred units are too little work for two threads: they wait for each other longer than they compute, and
where other processes use the cores, many times longer (times: results/2026-11-27-rivals/README.md).
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
