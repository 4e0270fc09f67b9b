"""The C library's memory, told to keep what training frees: the next step asks for the same again."""

import ctypes
import logging
import platform

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
