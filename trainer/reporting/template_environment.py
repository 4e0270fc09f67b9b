"""Where templates lie, and how strictly they are filled in."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.text import isolated

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def template_environment(*, escape: bool) -> "Environment":
    """What loads and fills templates; a name that a template uses and nobody gave is an error.

    Args:
        escape: whether text is escaped for HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=escape,
        finalize=_isolated if escape else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _isolated(value: Any) -> Any:
    """A text that goes into a page, line by line as in `isolated`; markup of our own is left as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(isolated, value.split("\n")))
