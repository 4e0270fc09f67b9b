"""Runs an application on a port until it is asked to stop; whatever is being answered then is answered first."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import uvicorn
from starlette.types import ASGIApp

from pipeline.runtime.errors import UsageError
from pipeline.runtime.interrupts import Stop, stop_requests

GRACE = 30  # seconds for what is being answered when the server is stopped
HEADER_SECONDS = 20.0  # in which a connection has to say what it wants, or to read a part of its answer
IDLE_SECONDS = 20  # until a connection that could ask again is closed
BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: there is no such address, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason}", "--port 0 takes a free port, --host names another address"
        ) from None
    # asyncio sends at once (TCP_NODELAY) only on sockets that name their protocol; otherwise the second packet of a
    # reply waits some 40 ms for the first one's receipt.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())


def run(
    app: ASGIApp,
    listening: socket.socket,
    ready: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Serves until SIGTERM, Ctrl-C or another signal that stops; signals reach the main thread alone.

    Args:
        ready: is called with the address, `http://127.0.0.1:8000`, once requests are taken.
        stopped: is asked ten times a second whether to stop, besides signals.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app, http="h11", ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=GRACE, timeout_keep_alive=IDLE_SECONDS,
    )  # fmt: skip
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    asyncio.run(_Server(config, lambda: ready(address), stopped).serve([listening]))


class _Server(uvicorn.Server):
    """Stops by this program's rules, and drops connections that say nothing."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopped: Callable[[], bool]) -> None:
        super().__init__(config)
        self._ready, self._stop, self._stopped = ready, Stop(), stopped
        self._silent: WeakKeyDictionary[Any, _Silence] = WeakKeyDictionary()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with stop_requests() as self._stop:
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._drop_silent()
        return await super().on_tick(counter) or self._stop.requested or self._stopped()

    def _drop_silent(self) -> None:
        """Drops connections that take too long to say what they want, or to take a step in reading their answer."""
        now = time.monotonic()
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)  # of the last request that came whole
            if cycle is not None and not cycle.response_complete:
                self._silent.pop(connection, None)
                continue
            unread = connection.transport.get_write_buffer_size()
            known = self._silent.get(connection)
            if known is None or not known.is_still(cycle, unread):
                # A strong reference to the cycle would keep the connection alive.
                self._silent[connection] = _Silence(cycle and ref(cycle), unread, now)
            elif now - known.since > HEADER_SECONDS:
                connection.transport.abort()  # closing would wait for the answer to be read


@dataclass(frozen=True)
class _Silence:
    """A connection after its last request, or before its first, and how many bytes of the answer are not taken yet."""

    cycle: "ref[Any] | None"
    unread: int
    since: float

    def is_still(self, cycle: object, unread: int) -> bool:
        """Whether nothing has happened: another request may have come and been answered."""
        return (self.cycle and self.cycle()) is cycle and self.unread == unread
