"""What this process may use of its machine: cores and memory, within the limits of its container or batch job.

A container sees all cores and all memory of its host. What it may use is in its control group: files of the kernel, in
two versions (https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/). A limit may stand at any level
above the process, and the smallest counts.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60  # version 1 says "no limit" with a number about as large as an address
_ROOT = Path("/")
_THREADS = re.compile("0*[1-9][0-9]{0,8}")


def cores(root: Path = _ROOT) -> int:
    """The number of cores this process may use: those it is bound to, or fewer if its container has a quota.

    A quota of 1.5 cores counts as 2.

    Args:
        root: where the kernel's files are.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def share_threads() -> None:
    """Keeps numerical libraries that are imported later to the quota, unless OMP_NUM_THREADS says how many.

    Without a quota nothing changes: each library has its own default.
    """
    if cpu_quota() is not None and not threads_asked():
        os.environ["OMP_NUM_THREADS"] = str(cores())


def threads_asked() -> int | None:
    """The number of threads that OMP_NUM_THREADS asks for.

    None if it is not set, or holds no number from 1 up, such as the 0 with which some mean "all": libraries then take
    their own default, which is the host's number of cores. Of a list, one number for each level of nesting, the first
    counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if _THREADS.fullmatch(first) else None


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The CPU time per second that the container may use, such as 1.5; None if there is no quota."""
    quotas = []
    for folder in _groups("cpu", root):
        match _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"):
            case [quota, period] if _number(quota) > 0 and _number(period) > 0:
                quotas.append(_number(quota) / _number(period))
    return min(quotas, default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """The container's memory limit in bytes; None if there is none."""
    return min((limit for limit, _ in _memory_limits(root)), default=None)


def free_memory(root: Path = _ROOT) -> int:
    """The memory in bytes that the machine has free, within the container's limit."""
    free = _available(root)
    for limit, folder in _memory_limits(root):
        used, *_ = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes") or ["0"]
        statistics = _words(folder / "memory.stat")
        values = dict(zip(statistics[::2], statistics[1::2], strict=False))
        cached = values.get("total_inactive_file", values.get("inactive_file", "0"))  # the kernel drops it when asked
        free = min(free, max(0, limit - max(0, _number(used)) + max(0, _number(cached))))
    return free


def _available(root: Path) -> int:
    words = _words(root / "proc/meminfo")
    if "MemAvailable:" in words[:-1]:
        kilobytes = _number(words[words.index("MemAvailable:") + 1])
        if kilobytes >= 0:
            return 1024 * kilobytes
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _memory_limits(root: Path) -> Iterator[tuple[int, Path]]:
    for folder in _groups("memory", root):
        words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        if len(words) == 1 and 0 < (limit := _number(words[0])) < _UNLIMITED:
            yield limit, folder


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control group and of the groups above it, in both versions.

    Within a container the path of the group may be the host's, which is not mounted: then only its top exists.
    """
    for line in _text(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        top = root / "sys/fs/cgroup" / controllers
        if controllers and controller not in controllers.split(","):
            continue
        if controllers and not top.is_dir():
            top = root / "sys/fs/cgroup" / controller
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            folder = top.joinpath(*parts[:depth])
            if _is_folder(folder):
                yield folder


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _words(*paths: Path) -> list[str]:
    return [word for path in paths for word in _text(path).split()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


def _number(word: str) -> int:
    """A whole number; -1 for any other word, such as "max"."""
    return int(word) if word.isascii() and word.isdigit() and len(word) < 20 else -1
