"""What a result may depend on besides its settings: versions, the processor, threads."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.versions import versions


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
