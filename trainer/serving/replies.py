"""What a server says when it does not answer: one sentence, what helps, and the status that fits."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

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
