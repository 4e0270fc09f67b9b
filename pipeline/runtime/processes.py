"""Which process this is, in words that another process, or another host, can look at later."""

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

_WORD = re.compile(r"(?P<place>[0-9a-f]{12})-(?P<pid>\d{1,10})-(?P<start>\d{1,20})")


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
        place: stands for the machine since it was started, and for the container there; numbers of processes of one
            place can be looked up, those of another cannot.
        pid: its number there.
        start: when it began, in ticks since the machine was started: numbers are given anew, starts are not.
    """

    place: str
    pid: int
    start: int

    @classmethod
    def parse(cls, word: str) -> Self | None:
        """What `str` wrote; None for another text."""
        found = _WORD.fullmatch(word)
        return cls(found["place"], int(found["pid"]), int(found["start"])) if found else None

    def __str__(self) -> str:
        return f"{self.place}-{self.pid}-{self.start}"

    @property
    def gone(self) -> bool:
        """Whether it is known to have ended; of a process of another place nothing is known."""
        return self.place == _place() and _start(self.pid) != self.start


def this_process() -> Process:
    """The process that asks; a fork is another one."""
    pid = os.getpid()
    return Process(_place(), pid, _start(pid) or 0)


def host() -> str:
    """The name of this host, for people to read."""
    return platform.node() or "this host"


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
    """When a process of this place began; None where there is none, or where it has ended and waits to be read."""
    try:
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
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
