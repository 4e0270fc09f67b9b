"""The machine's memory: how much is free, and how the C library handles memory that training frees."""

import ctypes
import logging
import platform

import torch

from pipeline.runtime.machine import free_memory

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # the options of mallopt in glibc's malloc.h
_MALLOC_BYTES = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
_log = logging.getLogger(__name__)


def keep_freed_memory() -> None:
    """Makes the C library keep the memory that training frees, since the next step needs it again.

    Otherwise every activation of a megabyte is a new mapping whose pages the kernel zeroes at every step. Only glibc
    has these options; with any other library nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for option, size in _MALLOC_BYTES.items():
        if not mallopt(option, size):
            _log.debug("mallopt(%d, %d) was refused", option, size)


def free_bytes(device: torch.device) -> int:
    """The free memory of a device in bytes: the GPU's, or the machine's within the limit of the process's container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
