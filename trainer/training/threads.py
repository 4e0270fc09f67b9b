"""How many threads training takes on a CPU.

Layers of 128 units are too little work for two threads: on free cores a training took 0.9 to 1.4 times as long as with
one, and 2.5 times and more where other processes used the cores, since each thread waits for the other
(results/2026-11-28-stacks-cpu/README.md). Between 128 and 512 units nothing was measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.runtime.machine import threads_asked
from trainer.settings.run_settings import Settings
from trainer.settings.widths import is_narrow


@contextmanager
def threads(settings: Settings, device: torch.device) -> Iterator[None]:
    """A context in which narrow networks are trained by one thread on a CPU, unless OMP_NUM_THREADS says how many."""
    before = torch.get_num_threads()
    if device.type == "cpu" and not threads_asked() and is_narrow(settings):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
