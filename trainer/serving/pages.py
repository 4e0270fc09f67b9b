"""The pages: templates filled in, and the style sheets and scripts that they have."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trainer.reporting.template_environment import template_environment

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_FILES = {path.name for path in (_HERE / "static").iterdir() if path.suffix in _KINDS}
_SHARED = "style.css"  # of the reports: colours, tables, letters


@cache
def environment() -> "Environment":
    """What fills in the templates of this room."""
    from jinja2 import FileSystemLoader

    made = template_environment(escape=True)
    made.loader = FileSystemLoader(_HERE / "templates")
    return made


@cache
def _content(name: str) -> str:
    text = (_HERE / "static" / name).read_text(encoding="utf-8")
    if name.endswith(".css"):
        shared = template_environment(escape=False)
        assert shared.loader is not None
        text = shared.loader.get_source(shared, _SHARED)[0] + text
    return text


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _FILES:
        return Response(status_code=404)
    kind = _KINDS[Path(name).suffix]
    return Response(_content(name), media_type=kind, headers={"cache-control": "no-cache"})


def static_route() -> Route:
    """The route of style sheets and scripts."""
    return Route("/static/{name}", _static)
