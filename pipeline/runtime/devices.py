"""Choosing the device to compute on."""

import torch

from pipeline.runtime.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device for `auto` (CUDA if there is a GPU), `cpu` or `cuda`.

    Raises:
        UsageError: this machine has no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"there is no device '{name}'", "devices: auto, cpu, cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("there is no CUDA device here", "use --device cpu, or --device auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
