"""Names a process in a form that another process, on this or another host, can check later."""

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

_FORMAT = re.compile(r"(?P<place>[0-9a-f]{12})-(?P<pid>\d{1,10})-(?P<start>\d{1,20})")
_START_FIELD = 19  # of /proc/PID/stat, counted after the name: ticks between the machine's boot and the process's start


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
        place: identifies the machine since its last boot, and the container on it. Process ids can be looked up within
            a place, but not from another one.
        pid: the process id there.
        start: when it started, in ticks since boot: ids are reused, the pair of id and start is not.
    """

    place: str
    pid: int
    start: int

    @classmethod
    def parse(cls, word: str) -> Self | None:
        """Parses what `str` wrote; None for any other text."""
        match = _FORMAT.fullmatch(word)
        return cls(match["place"], int(match["pid"]), int(match["start"])) if match else None

    def __str__(self) -> str:
        return f"{self.place}-{self.pid}-{self.start}"

    @property
    def gone(self) -> bool:
        """Whether it is known to have ended; nothing is known about a process in another place."""
        return self.place == _place() and _start(self.pid) != self.start


def this_process() -> Process:
    """The calling process; a fork is another one."""
    return _process(os.getpid())


def host() -> str:
    """The name of this host, for people to read."""
    return platform.node() or "this host"


@lru_cache(maxsize=1)
def _process(pid: int) -> Process:
    return Process(_place(), pid, _start(pid) or 0)


@lru_cache(maxsize=1)
def _place() -> str:
    facts = [host()]
    for path, read in (("/proc/sys/kernel/random/boot_id", _text), ("/proc/self/ns/pid", os.readlink)):
        try:
            facts.append(read(path))
        except OSError:  # not Linux
            facts.append("")
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]


def _text(path: str) -> str:
    return Path(path).read_text().strip()


def _start(pid: int) -> int | None:
    """When a process in this place started; None if there is none, or if it has ended and is waiting to be reaped.

    Without /proc the start is not known: 0 for every process that exists.
    """
    try:
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[_START_FIELD])
    except (OSError, ValueError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        pass
    return 0
