"""SIGTERM and Ctrl-C as a request to stop, which long work checks between steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether a stop was requested; `name` is the signal that requested it."""

    name: str | None = None

    @property
    def requested(self) -> bool:
        return self.name is not None


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Within the block the first SIGTERM or SIGINT only sets the request; a second one acts as it did before.

    Signals reach only the main thread: in any other thread the request never comes.
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
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        previous.clear()
    try:
        yield stop
    finally:
        restore()
