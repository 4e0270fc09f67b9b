"""The machine's memory: how much is free, and the C library told to keep what training frees, as it is soon used."""

import ctypes
import logging
import os
import platform
from pathlib import Path

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_log = logging.getLogger(__name__)


def keep_freed_memory() -> None:
    """Without it every activation of a megabyte is a fresh mapping, whose pages the kernel zeroes at every step.

    glibc alone has these settings; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for option, size in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)):
        if not mallopt(option, size):
            _log.debug("mallopt(%d, %d) was refused", option, size)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device: the GPU's, or the machine's within the limit of this process's container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        return free if limit == "max" else min(free, int(limit) - int(used) + int(cached))
    except (OSError, KeyError, ValueError):
        return free
