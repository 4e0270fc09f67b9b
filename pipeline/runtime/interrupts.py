"""SIGTERM and Ctrl-C as a request that long work looks at between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether someone asked the work to stop; `name` is the signal that did."""

    name: str | None = None

    @property
    def requested(self) -> bool:
        return self.name is not None


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Within it the first SIGTERM or SIGINT only sets the request; a second one acts as it did before.

    Signals reach the main thread alone: elsewhere the request never comes.
    """
    stop = Stop()
    previous: dict[signal.Signals, object] = {}

    def ask(number: int, _: FrameType | None) -> None:
        stop.name = signal.Signals(number).name
        restore()

    def restore() -> None:
        for which, handler in previous.items():
            signal.signal(which, handler)  # type: ignore[arg-type]

    try:
        for which in (signal.SIGTERM, signal.SIGINT):
            previous[which] = signal.signal(which, ask)
    except ValueError:  # not the main thread
        previous.clear()
    try:
        yield stop
    finally:
        restore()
