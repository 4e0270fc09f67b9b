"""A generated file: written, or held against what is committed."""

import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(texts: Mapping[str, str], module: str) -> int:
    """Writes files, named from the root of the repository, or only compares them where `--check` is given.

    Returns:
        The exit code: 1 where a file differs from what would be written.
    """
    stale = [name for name, text in texts.items() if not current(name, text)]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"{name} is out of date; run: python -m {module}", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(texts[name], encoding="utf-8")
        print(f"wrote {name}")
    return 0


def current(name: str, text: str) -> bool:
    """Whether a committed file has this text."""
    path = ROOT / name
    return path.exists() and path.read_text(encoding="utf-8") == text
