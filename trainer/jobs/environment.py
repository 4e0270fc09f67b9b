"""The device, and what else a result may depend on besides its settings."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.errors import UsageError
from pipeline.runtime.versions import versions


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA where there is one), `cpu` or `cuda`.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("there is no CUDA device here", "use --device cpu, or --device auto")
        return torch.device("cuda")
    raise UsageError(f"there is no device '{name}'", "devices: auto, cpu, cuda")


def environment(device: torch.device) -> dict[str, Any]:
    """What a result may depend on besides its settings."""
    name = os.path.basename(sys.argv[0])
    return {
        **versions("numpy", "torch", "scikit-learn"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "command": " ".join(["mmssl" if name == "cli.py" else name, *sys.argv[1:]]),  # `python -m cli` is the same
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
