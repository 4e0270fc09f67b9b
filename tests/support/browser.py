"""A real browser for tests of pages: chromium, driven by playwright."""

import base64
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
_SECONDS = 20

_DROP = """([box, files]) => {
  const data = new DataTransfer();
  for (const [name, content] of files) {
    data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
  }
  const target = document.querySelector(box);
  for (const kind of ["dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""

# What has the focus: its name for people, and how wide the outline is that shows it.
_FOCUSED = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const label = element.labels && element.labels.length ? element.labels[0] : null;
  const outline = (shown) => getComputedStyle(shown).outlineStyle === "none" ? 0
    : parseFloat(getComputedStyle(shown).outlineWidth);
  const name = element.getAttribute("aria-label") || (label || element).textContent.trim();
  const shown = label ? [element, ...label.children] : [element];
  return [name, Math.max(...shown.map(outline))];
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without windows; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` (playwright) is not installed")
    with playwright.sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        try:
            browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no chromium can be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@contextmanager
def page_at(browser: Any, address: str, size: dict[str, int] | None = None, dark: bool = False) -> Iterator[Any]:
    """A page; afterwards its console must hold nothing, unless the test has emptied `page.console_lines`."""
    context = browser.new_context(viewport=size or DESKTOP, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(_SECONDS * 1000)
    page.console_lines = []
    page.on("console", lambda message: page.console_lines.append(message.text))
    page.on("pageerror", lambda error: page.console_lines.append(str(error)))
    page.goto(address)
    yield page
    lines = page.console_lines
    context.close()
    assert not lines, lines


def drop(page: Any, box: str, files: Sequence[Path]) -> None:
    """Drops files on the element of a selector, as dragging them from another window does."""
    page.evaluate(_DROP, [box, [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in files]])


def focused(page: Any) -> tuple[str, float] | None:
    """The accessible name of what has the focus, and the width of the outline around it; None for nothing."""
    found = page.evaluate(_FOCUSED)
    return None if found is None else (str(found[0]), float(found[1]))
