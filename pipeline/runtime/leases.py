"""Lets one process at a time write an output: a run's folder, an image store, a feature file.

A lease is a small file with a unique name, next to the output or in its folder, created before work begins and removed
afterwards. A process that finds the lease of another live process withdraws its own. When two ask at once, each sees
the other's lease, because each looks only after creating its own; both withdraw and ask again after a random delay.

Whether the holder is alive is looked up if it runs in the same place (its process id, and when it started). Of a
process on another host only the heartbeat is visible: a counter in the lease, written every few seconds. A process that
does not see it move for `LEASE_SECONDS` on its own monotonic clock considers the holder dead. Clocks are never compared
and no file is locked: all this needs is storage that shows others a new file and its bytes once closed or flushed.
"""

import glob
import json
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

from pipeline.runtime.errors import LeasedError
from pipeline.runtime.files import flush_descriptor, storage_error, sweep
from pipeline.runtime.processes import Process, host, this_process

_log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
_ASK_AGAIN = 8  # leases of others met while asking, after which the next one is taken to be a holder's
_RETRY_SECONDS = (0.1, 0.3)  # the random delay before asking again
_POLL = 0.5  # seconds between two looks at another process's lease
_COUNT = "%012d"  # of fixed width: a heartbeat overwrites the one before
_MOST_BYTES = 1000  # read of a lease, which is far smaller

Wait = Callable[[], None]  # called while waiting for another process; raises if the work should stop


@dataclass(frozen=True)
class Holder:
    """The content of a lease file."""

    path: Path
    process: Process | None  # None if the file is empty or cut short: its writer died, or has yet to write it
    host: str
    beat: str

    def __str__(self) -> str:
        who = f"process {self.process.pid}" if self.process else "another process"
        return f"{who} on {self.host}"


class Lease:
    """The leases that this process holds."""

    def __init__(self) -> None:
        self.files: dict[Path, int] = {}  # lease file -> its descriptor
        self.lost: Path | None = None
        self.silent: set[Process] = set()  # elsewhere, found dead while asking: not waited for again
        self._released = Event()
        self._lock = Lock()  # no descriptor is closed, and reused for another file, during a heartbeat
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)

    def check(self) -> None:
        """Raises an error if a lease was lost.

        Raises:
            LeasedError: a lease was taken away because this process had been silent for too long.
        """
        if self.lost is not None:
            raise LeasedError(
                f"{self.lost} is gone: this process was silent for so long that another may have taken over its work",
                "run the same command again: it waits for the other process, or resumes",
            )

    def add(self, path: Path) -> None:
        """Creates a lease file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise storage_error(path.parent, error) from error
        self.files[path] = descriptor
        try:
            os.write(descriptor, (json.dumps({"process": str(this_process()), "host": host()}) + "\n").encode())
            os.write(descriptor, (_COUNT % 0).encode())
            flush_descriptor(descriptor)
        except OSError as error:
            self.remove(path)
            raise storage_error(path.parent, error) from error
        if not self._thread.is_alive():
            self._thread.start()

    def remove(self, path: Path) -> None:
        with self._lock:
            os.close(self.files.pop(path))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cannot remove the lease %s: %s", path, error.strerror)

    def release(self) -> None:
        self._released.set()
        if self._thread.is_alive():
            self._thread.join()
        for path in list(self.files):
            self.remove(path)

    def _beat(self) -> None:
        count = 0
        while not self._released.wait(BEAT_SECONDS):
            count += 1
            with self._lock:
                for path, descriptor in self.files.items():
                    try:
                        text = (_COUNT % count).encode()
                        os.pwrite(descriptor, text, os.fstat(descriptor).st_size - len(text))
                        flush_descriptor(descriptor)
                        if not path.exists():
                            self.lost = path
                    except OSError as error:  # the storage may be unreachable for a while: the next beat may succeed
                        _log.debug("%s: no heartbeat: %s", path, error)


@contextmanager
def lease(*outputs: Path, folders: bool = False, wait: Wait | None = None) -> Iterator[Lease]:
    """Makes this process the only writer of the outputs within the block; removes what dead processes left unfinished.

    Args:
        outputs: files, or, with `folders`, folders, which are created if missing.
        wait: if given, waits until another holder has finished; otherwise another holder is an error.

    Raises:
        LeasedError: another live process, named in the message, holds one of them.
        StorageError: the disk is full, read-only, or refuses.
    """
    held = Lease()
    places = [(output, output if folders else output.parent, "" if folders else output.name) for output in outputs]
    new_folders = [place for _, place, _ in places if folders and not place.exists()]
    try:
        for output, place, name in places:
            _acquire(held, output, place, name, wait)
            sweep(place, f".{glob.escape(name)}.*.partial" if name else ".*.partial", others=True)
        yield held
    finally:
        held.release()
        for place in new_folders:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def _acquire(held: Lease, output: Path, place: Path, name: str, wait: Wait | None) -> None:
    seen: set[Path] = set()
    while True:
        lease_path = place / f".{name}{'.' * bool(name)}{uuid.uuid4().hex}.lease"
        held.add(lease_path)
        try:
            holder = next(
                (other for other in _leases(place, name) if other.path != lease_path and not _dead(other, held.silent)),
                None,
            )
        except BaseException:
            held.remove(lease_path)
            raise
        if holder is None:
            return
        held.remove(lease_path)
        # A process that asks withdraws at once and asks again under another name: a lease seen twice is a holder's.
        holds = holder.path in seen or len(seen) > _ASK_AGAIN
        seen.add(holder.path)
        if holds and wait is None:
            raise LeasedError(
                f"{output} is being written by {holder}",
                "wait until it is done, or stop it; then run the command again",
            )
        if holds and wait is not None:
            _log.info("waiting for %s, which is writing %s", holder, output)
            while any(not _dead(other, held.silent) for other in _leases(place, name)):
                wait()
                time.sleep(_POLL)
        time.sleep(random.SystemRandom().uniform(*_RETRY_SECONDS))


def _dead(other: Holder, silent: set[Process]) -> bool:
    """Whether the holder of a lease has ended; if so, removes its lease. Waits for a heartbeat if only that can tell.

    Args:
        silent: processes already known to have no heartbeat; extended here.
    """
    if other.process in silent:
        gone = True
    elif other.process is not None and other.process.place == this_process().place:
        gone = other.process.gone
    else:
        began, logged = time.monotonic(), False
        while not (gone := time.monotonic() - began > LEASE_SECONDS):
            current = _read(other.path)
            if current is None:
                return True  # released
            if current != other:
                here = current.process is not None and current.process.place == this_process().place
                return _dead(current, silent) if here else False
            if not logged and time.monotonic() - began > BEAT_SECONDS:
                logged = True
                _log.info("%s holds %s; waiting up to %.0f s for a sign of life", other, other.path, LEASE_SECONDS)
            time.sleep(min(_POLL, BEAT_SECONDS / 4))
        if other.process is not None:
            silent.add(other.process)
    if gone:
        _log.info("%s has ended; removing its lease", other)
        try:
            other.path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(other.path, error) from error
    return gone


def remove_stale(folder: Path) -> None:
    """Removes leases, also of finished outputs, from a folder if their processes ran in this place and have ended."""
    for path in folder.glob(".*.lease"):
        holder = _read(path)
        if holder is not None and holder.process is not None and holder.process.place == this_process().place:
            _dead(holder, set())


def _leases(place: Path, name: str) -> Sequence[Holder]:
    holders = []
    for entry in sorted(os.listdir(place)):
        prefix, dot, _ = entry.removesuffix(".lease").rpartition(".")
        if entry.endswith(".lease") and dot and prefix == (f".{name}" if name else ""):
            holder = _read(place / entry)
            if holder is not None:
                holders.append(holder)
    return holders


def _read(path: Path) -> Holder | None:
    """Reads a lease file; None if it is gone. Opened again each time, so that NFS shows the server's current state."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error) from error
    first, _, beat = text.partition("\n")
    try:
        values = json.loads(first)
        process, name = Process.parse(values["process"]), str(values["host"])
    except (ValueError, KeyError, TypeError):
        process, name = None, "an unknown host"
    return Holder(path, process, name, beat)
