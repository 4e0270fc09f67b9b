"""What a server says when it does not answer: one sentence, what helps, and the status that fits."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from pipeline.runtime.errors import MmsslError


class Refused(MmsslError):
    """A request that is not answered; `status` is HTTP's number for why."""

    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.status = status

    def __reduce__(self) -> tuple[type["Refused"], tuple[int, str, str | None]]:  # type: ignore[override]
        return type(self), (self.status, self.message, self.hint)


def refusal(error: MmsslError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as a reply: what was given is wrong, unless the error says otherwise."""
    status = error.status if isinstance(error, Refused) else 422
    return JSONResponse({"error": error.message, "hint": error.hint}, status, headers)


async def refused(_: HttpRequest, error: Exception) -> Response:
    """The reply to an error that says what is wrong."""
    assert isinstance(error, MmsslError)
    return refusal(error)


async def gone(_: HttpRequest, __: Exception) -> Response:
    """For a client that hung up before its request was complete: nobody reads it."""
    return Response(status_code=400)


def not_found(hint: str | None = None) -> Callable[[HttpRequest, Exception], Awaitable[Response]]:
    """The replies to a path that is none, or a method that it does not take."""

    async def reply(http: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = {404: f"there is no {http.url.path[:100]}", 405: f"{http.url.path[:100]} does not take {http.method}"}
        return refusal(Refused(error.status_code, what.get(error.status_code, str(error.detail)), hint))

    return reply
