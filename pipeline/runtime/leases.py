"""One process at a time writes an output: a run's folder, an image store, a feature file.

A lease is a small file with a name of its own, beside the output or in its folder, made before work begins and removed
after it. Whoever finds the lease of another process that lives withdraws. Of two that ask at once, each sees the
other's, for each looks after it has made its own; both withdraw and ask again a random moment later.

Whether the holder lives is looked up where it runs in the same place (its number, and when it began). Of a process of
another host only its heartbeat is seen: a counter in the lease, written every few seconds. Who does not see it move for
`LEASE_SECONDS` of its own steady clock takes the holder for dead. No clock is compared with another, no file is locked:
storage on which a new file and its bytes are seen by others, once closed or flushed, is enough.
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
from pipeline.runtime.files import storage_error, sweep
from pipeline.runtime.processes import Process, host, this_process

_log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
_ASK_AGAIN = 8  # times, before another process that lives is believed to be the holder
_POLL = 0.5
_COUNT = "%012d"
_MOST_BYTES = 1000

Wait = Callable[[], None]  # called while another process is waited for; raises where the work is to stop


@dataclass(frozen=True)
class Holder:
    """What a lease's file says."""

    path: Path
    process: Process | None  # None where the file is empty or cut short: its maker died, or is about to write it
    host: str
    beat: str

    def __str__(self) -> str:
        who = f"process {self.process.pid}" if self.process else "another process"
        return f"{who} on {self.host}"


class Lease:
    """The outputs that this process holds."""

    def __init__(self) -> None:
        self.files: dict[Path, int] = {}
        self.lost: Path | None = None
        self.silent: set[Process] = set()  # of other places, found dead while asking: no need to wait for each lease
        self._over = Event()
        self._lock = Lock()  # a descriptor is not closed, and given to another file, while the heartbeat writes to it
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)

    def check(self) -> None:
        """
        Raises:
            LeasedError: the lease was taken away, for this process had been silent for too long.
        """
        if self.lost is not None:
            raise LeasedError(
                f"{self.lost} is gone: this process was silent for so long that another one may have gone on with its "
                "work",
                "the same command waits for the other one, or goes on from there",
            )

    def add(self, path: Path) -> None:
        """Makes the file of a lease."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise storage_error(path.parent, error) from error
        self.files[path] = descriptor
        try:
            os.write(descriptor, (json.dumps({"process": str(this_process()), "host": host()}) + "\n").encode())
            os.write(descriptor, (_COUNT % 0).encode())
            os.fsync(descriptor)
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
            _log.warning("%s is left behind: %s", path, error.strerror)

    def release(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for path in list(self.files):
            self.remove(path)

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(BEAT_SECONDS):
            count += 1
            with self._lock:
                for path, descriptor in self.files.items():
                    try:
                        text = (_COUNT % count).encode()
                        os.pwrite(descriptor, text, os.fstat(descriptor).st_size - len(text))
                        os.fsync(descriptor)
                        if not path.exists():
                            self.lost = path
                    except OSError as error:  # a storage that is away for a while: the next beat may reach it
                        _log.debug("%s: no heartbeat: %s", path, error)


@contextmanager
def lease(*outputs: Path, folders: bool = False, wait: Wait | None = None) -> Iterator[Lease]:
    """This process alone writes the outputs within the block; what dead processes left unfinished there is removed.

    Args:
        outputs: files, or, with `folders`, folders that are made where they are not there.
        wait: with it, another process is waited for until it ends; without it, it is an error.

    Raises:
        LeasedError: another process that lives holds one of them; it is named.
        StorageError: the disk is full, read-only, or refuses.
    """
    held = Lease()
    places = [(output, output if folders else output.parent, "" if folders else output.name) for output in outputs]
    new = [place for _, place, _ in places if folders and not place.exists()]
    try:
        for output, place, name in places:
            _acquire(held, output, place, name, wait)
            sweep(place, f".{glob.escape(name)}.*.partial" if name else ".*.partial", others=True)
        yield held
    finally:
        held.release()
        for place in new:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def _acquire(held: Lease, output: Path, place: Path, name: str, wait: Wait | None) -> None:
    seen: set[Path] = set()
    while True:
        mine = place / f".{name}{'.' * bool(name)}{uuid.uuid4().hex}.lease"
        held.add(mine)
        try:
            live = next(
                (other for other in _leases(place, name) if other.path != mine and not _dead(other, held.silent)), None
            )
        except BaseException:
            held.remove(mine)
            raise
        if live is None:
            return
        held.remove(mine)
        # Who asks withdraws at once, and asks again under another name: what is still there is a holder's.
        holds = live.path in seen or len(seen) > _ASK_AGAIN
        seen.add(live.path)
        if holds and wait is None:
            raise LeasedError(
                f"{output} is being written by {live}", "wait until it is done, or stop it; then give the command again"
            )
        if holds and wait is not None:
            _log.info("waiting for %s, which is writing %s", live, output)
            while any(not _dead(other, held.silent) for other in _leases(place, name)):
                wait()
                time.sleep(_POLL)
        time.sleep(random.SystemRandom().uniform(0.1, 0.3))


def _dead(other: Holder, silent: set[Process]) -> bool:
    """Whether the holder of a lease has ended; then its lease is removed. Waits for a heartbeat where that decides.

    Args:
        silent: processes for whose heartbeat someone has waited in vain; added to.
    """
    if other.process in silent:
        gone = True
    elif other.process is not None and other.process.place == this_process().place:
        gone = other.process.gone
    else:
        begun, told = time.monotonic(), False
        while not (gone := time.monotonic() - begun > LEASE_SECONDS):
            now = _read(other.path)
            if now is None:
                return True  # released
            if now != other:
                here = now.process is not None and now.process.place == this_process().place
                return _dead(now, silent) if here else False
            if not told and time.monotonic() - begun > BEAT_SECONDS:
                told = True
                _log.info("%s holds %s; waiting up to %.0f s for a sign of life", other, other.path, LEASE_SECONDS)
            time.sleep(min(_POLL, BEAT_SECONDS / 4))
        if other.process is not None:
            silent.add(other.process)
    if gone:
        _log.info("%s has ended; its lease is removed", other)
        try:
            other.path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(other.path, error) from error
    return gone


def remove_stale(folder: Path) -> None:
    """Removes the leases in a folder whose processes ran here and have ended: also of outputs that are done."""
    for path in folder.glob(".*.lease"):
        holder = _read(path)
        if holder is not None and holder.process is not None and holder.process.place == this_process().place:
            _dead(holder, set())


def _leases(place: Path, name: str) -> Sequence[Holder]:
    found = []
    for entry in sorted(os.listdir(place)):
        before, dot, _ = entry.removesuffix(".lease").rpartition(".")
        if entry.endswith(".lease") and dot and before == (f".{name}" if name else ""):
            holder = _read(place / entry)
            if holder is not None:
                found.append(holder)
    return found


def _read(path: Path) -> Holder | None:
    """None where the file is not there any more. Opened anew each time: on NFS it is then the server's state."""
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
