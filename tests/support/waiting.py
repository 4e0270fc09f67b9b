"""Waiting for what another process does."""

import time
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], object], what: str, folder: Path, seconds: float = 150) -> None:
    """Waits until the condition holds; fails after that many seconds, with what the logs in the folder say."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what + "".join(
            f"\n{log.name}: {log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log"))
        )
        time.sleep(0.05)
