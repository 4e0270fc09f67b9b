"""Shows in what two recordings of `record.py` differ: `python -m tests.golden.compare before.json after.json`.

The exit code is 1 if they differ, and 0 if they do not.
"""

# ruff: noqa: T201
import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tests.golden.digests import Table
from tests.golden.expected import ADDED

SHOWN = 20  # differences of one output; where there are more, all of it is different
_ABSENT = object()


def differences(before: Mapping[str, Table], after: Mapping[str, Table]) -> dict[str, list[str]]:
    """For each output that differs, one line for each of its values that does."""
    lines_by_output = {}
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            lines_by_output[name] = ["only before"]
        elif name not in before:
            if PurePosixPath(name).name not in ADDED:
                lines_by_output[name] = ["only after"]
        elif lines := list(_of_tables(before[name], after[name])):
            lines_by_output[name] = lines
    return lines_by_output


def _of_tables(before: Table, after: Table) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys(), key=_natural):
        old, new = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if old is _ABSENT and not ADDED.isdisjoint(re.split(r"[.@\[\]]+", key)):
            continue
        old, new = ("absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False) for value in (old, new))
        if old != new:  # as texts: 1, 1.0 and true are not the same
            yield f"{key}: {old} -> {new}"


def _natural(key: str) -> list[tuple[int, str]]:
    """Orders `[2]` before `[10]`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", key)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares two recordings of record.py.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args()
    before, after = (_read(path) for path in (given.before, given.after))
    for key in ("cpu", "torch"):
        if before["about"][key] != after["about"][key]:
            print(f"not comparable: {key} {before['about'][key]}, then {after['about'][key]}")
    differing = differences(before["outputs"], after["outputs"])
    for name, lines in differing.items():
        print(name)
        for line in lines[:SHOWN]:
            print(f"    {line}")
        if len(lines) > SHOWN:
            print(f"    and {len(lines) - SHOWN} more")
    total = len(before["outputs"].keys() | after["outputs"].keys())
    print(f"{len(differing)} of {total} outputs differ")
    sys.exit(1 if differing else 0)


def _read(path: Path) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return recording


if __name__ == "__main__":
    main()
