"""What a result may depend on apart from its settings: versions, the processor, the number of threads."""

import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.versions import versions


def environment(device: torch.device) -> dict[str, Any]:
    """What a result may depend on apart from its settings, as a run's provenance records it."""
    name = os.path.basename(sys.argv[0])
    return {
        **versions("numpy", "torch", "scikit-learn"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "command": shlex.join(["mmssl" if name == "cli.py" else name, *sys.argv[1:]]),  # `python -m cli` is mmssl too
    }


def cpu_name() -> str:
    """The processor's model name, or the architecture where the system does not give one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
