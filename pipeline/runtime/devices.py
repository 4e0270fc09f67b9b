"""Choosing the device to compute on, and how many threads a CPU computes with."""

import torch

from pipeline.runtime.errors import UsageError
from pipeline.runtime.machine import cores, cpu_quota, threads_asked


def choose_device(name: str) -> torch.device:
    """The device for `auto` (CUDA if there is a GPU), `cpu` or `cuda`.

    Within a container's CPU quota, torch gets no more threads than the quota allows, unless OMP_NUM_THREADS says how
    many: by default it starts one per core of the host, and they take the time from one another.

    Raises:
        UsageError: this machine has no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"there is no device '{name}'", "devices: auto, cpu, cuda")
    if cpu_quota() is not None and not threads_asked() and torch.get_num_threads() > cores():
        torch.set_num_threads(cores())
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("there is no CUDA device here", "use --device cpu, or --device auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
