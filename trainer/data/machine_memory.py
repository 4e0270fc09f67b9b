"""The machine's memory: how much is free, what becomes of memory that training frees, and which pages are mapped."""

import ctypes
import logging
import platform

import torch

from pipeline.runtime.machine import free_memory

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # the options of mallopt in glibc's malloc.h
_MALLOC_BYTES = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
_log = logging.getLogger(__name__)


def prepare_memory() -> None:
    """Makes this process's memory fit for training: freed memory is kept, and the constants of log1p are mapped."""
    _keep_freed_memory()
    _map_constants()


def _keep_freed_memory() -> None:
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


def _map_constants() -> None:
    """Has PyTorch's log1p read its constant for -0 once, so that the page that holds it is mapped.

    Its AVX-512 code loads that constant with a mask of the lanes that need it, nearly always an empty one. An empty
    load from a page that was never read maps nothing, and on a Zen 4 it takes longer than all the rest: until somebody
    passes -0, log1p, softplus and log-sigmoid take six times as long (results/2026-11-28-unmapped-constants).
    """
    torch.log1p(torch.full((64,), -0.0))


def free_bytes(device: torch.device) -> int:
    """The free memory of a device in bytes: the GPU's, or the machine's within the limit of the process's container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
