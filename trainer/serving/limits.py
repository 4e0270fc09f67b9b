"""What a server refuses before it reads it: bodies that are too large or too slow, and requests beyond those waiting.

A refusal is sent while the client still sends, and what it goes on sending is read and dropped for a while: closing at
once would often lose the sentence on its way.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.serving.replies import Refused, refusal

_DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """How much a server takes.

    Attributes:
        body: bytes of a request's body.
        waiting: requests that are received or answered at once.
        seconds: in which a body has to arrive.
        pixels: of a picture.
        rows: of a request.
    """

    body: int = 32 * 2**20
    waiting: int = 128
    seconds: float = 30.0
    pixels: int = 25_000_000
    rows: int = 10_000


class LimitedBodies:
    """Holds an application's POST requests to the limits; others have no body to speak of."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        if self.running >= self.limits.waiting:
            busy = Refused(503, f"{self.running} requests are waiting already", "try again in a second")
            await self._refuse(busy, scope, receive, send, {"retry-after": "1"})
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.limits.body:
            await self._refuse(self._too_large(), scope, receive, send)
            return
        self.running += 1
        try:
            await self._within(scope, receive, send)
        finally:
            self.running -= 1

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application on a body that is counted and timed while it arrives."""
        end = asyncio.get_running_loop().time() + self.limits.seconds
        received, complete, begun = 0, False, False

        async def counted() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise Refused(
                    408, f"the request did not arrive within {self.limits.seconds:g} seconds", "send it again"
                ) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self.limits.body:
                raise self._too_large()
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except Refused as refused:
            if begun:
                raise
            await self._refuse(refused, scope, receive, send)

    def _too_large(self) -> Refused:
        return Refused(
            413, f"a request may have {self.limits.body // 2**20} MB, and this one has more",
            "send smaller pictures, or fewer rows at a time",
        )  # fmt: skip

    async def _refuse(
        self, refused: Refused, scope: Scope, receive: Receive, send: Send, headers: dict[str, str] | None = None
    ) -> None:
        response = refusal(refused, {"connection": "close", **(headers or {})})

        async def open_ended(message: Message) -> None:
            if message["type"] == "http.response.body":
                await send({**message, "more_body": True})
            else:
                await send(message)

        await response(scope, receive, open_ended)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await _dropped(receive)
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})


async def _dropped(receive: Receive) -> None:
    message: dict[str, Any] = {"more_body": True}
    while message.get("more_body", False):
        message = dict(await receive())
