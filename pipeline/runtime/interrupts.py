"""Signals as a request to stop, which long work checks between steps.

SIGTERM and Ctrl-C; and what batch systems and terminals send besides: SIGUSR1 and SIGUSR2 (SLURM's `--signal`, Grid
Engine's `-notify`), SIGXCPU (a soft limit on time), SIGHUP (a terminal that was closed).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.runtime.errors import Interrupted

STOP_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if name in signal.Signals.__members__
)


def heeded() -> list[signal.Signals]:
    """The signals that stop this process: all of `STOP_SIGNALS`, but for those it was started to ignore.

    So `nohup` keeps its meaning. SIGTERM and SIGINT always count: a shell's background jobs ignore SIGINT, and
    `kill -INT` should stop them nevertheless.
    """
    always = (signal.SIGTERM, signal.SIGINT)
    return [which for which in STOP_SIGNALS if which in always or signal.getsignal(which) != signal.SIG_IGN]


class Stop:
    """Whether a stop was requested; `name` is the signal that requested it."""

    name: str | None = None

    @property
    def requested(self) -> bool:
        return self.name is not None


def check_stop(stop: Stop) -> None:
    """Raises an error if a stop was requested.

    Raises:
        Interrupted: a stop was requested.
    """
    if stop.requested:
        raise Interrupted(f"stopped by {stop.name}; finished work is kept", "run the same command again to resume")


_blocks: list[Stop] = []  # of `stop_requests`, the innermost last


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Within the block the first of the `heeded` signals only sets the request; a second one acts as it did before.

    Signals reach only the main thread: in any other thread the request never comes. A request that a block within
    another one did not act on, because its work was done, is the outer one's.
    """
    stop = Stop()
    previous: dict[signal.Signals, object] = {}

    def ask(number: int, _: FrameType | None) -> None:
        stop.name = signal.Signals(number).name
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    try:
        for number in heeded():
            previous[number] = signal.signal(number, ask)
        _blocks.append(stop)
    except ValueError:  # not the main thread
        previous.clear()
    try:
        yield stop
    finally:
        restore()
        if stop in _blocks:
            _blocks.remove(stop)
            if stop.requested and _blocks:
                _blocks[-1].name = stop.name
