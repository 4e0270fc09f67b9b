"""Who may use a server: whoever has its token, from pages of its own alone.

Without a token it listens to this machine alone, and answers only to this machine's own names, so that a web site
cannot reach it under a name of its own that leads here.
"""

import hmac
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.serving.pages import environment
from trainer.serving.replies import Refused, refusal

LOOPBACK = ("localhost", "127.0.0.1", "::1")
COOKIE = "mmssl_token"
OPEN = ("/healthz", "/static/")  # the beginnings of addresses that say nothing of the model
LEAST_TOKEN = 8  # characters
_LONGEST_PATH = 2000  # characters
_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; "
     b"img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)  # fmt: skip


@dataclass(frozen=True)
class Guard:
    """An application behind its token.

    Attributes:
        token: None to let everybody in who reaches it under a name of this machine.
    """

    app: ASGIApp
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        request = Request(scope, receive)
        app = self._refused(request) or self.app
        await app(scope, receive, safely)

    def _refused(self, request: Request) -> Response | None:
        origin = request.headers.get("origin")
        if len(request.url.path) > _LONGEST_PATH:
            return refusal(Refused(414, f"the address has more than {_LONGEST_PATH:,} letters", None))
        try:
            host, page = urlsplit(f"//{request.headers.get('host', '')}"), urlsplit(origin or "")
        except ValueError:
            return refusal(Refused(400, "Host or Origin is no address", None))
        if self.token is None and host.hostname not in LOOPBACK:
            return refusal(
                Refused(
                    403, f"this server answers to {', '.join(LOOPBACK)} alone",
                    "give it a token to use it under another name: mmssl serve --token",
                )
            )  # fmt: skip
        if request.method != "GET" and origin is not None and page.netloc != host.netloc:
            return refusal(Refused(403, "this request comes from a page of another site", None))
        if self.token is None or request.url.path.startswith(OPEN):
            return None
        given = parse_qs(request.url.query).get("token", [""])[-1]
        if request.method == "GET" and given and self._is_right(given):
            return self._welcome(request)
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_right(bearer.strip()):
            return None
        if self._is_right(request.cookies.get(COOKIE, "")):
            return None
        return self._ask(request, wrong=bool(given or bearer))

    def _welcome(self, request: Request) -> Response:
        """To the same address without the token, which the browser keeps from now on."""
        rest = {key: value for key, value in parse_qs(request.url.query).items() if key != "token"}
        query = urlencode(rest, doseq=True)
        response = RedirectResponse(request.url.path + (f"?{query}" if query else ""), 303)
        response.set_cookie(COOKIE, self.token or "", httponly=True, samesite="strict", max_age=30 * 86400)
        return response

    def _ask(self, request: Request, wrong: bool) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            page = environment().get_template("token.html.jinja").render(wrong=wrong)
            return HTMLResponse(page, 401)
        message = "the token is not the server's" if wrong else "this server needs its token"
        hint = "Authorization: Bearer TOKEN, or open /?token=TOKEN in a browser"
        return refusal(Refused(401, message, hint), {"www-authenticate": "Bearer"})

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())
