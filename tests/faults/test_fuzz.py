"""`fuzz.py` as a test: no traceback, no hang, no growth, and a good file of each kind is read."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.faults import FULL, count
from tests.support.paths import ROOT


def test_bad_files_and_commands_are_refused_in_a_sentence(tmp_path: Path, tally: Callable[..., None]) -> None:
    total = count(300, 10_000)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fuzz", tmp_path, str(total), "0"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500 if FULL else 120,
    )
    assert done.returncode == 0, f"{(tmp_path / 'last').read_text()}: {done.stderr[-2000:]}"
    report = json.loads(done.stdout)
    assert not report["faults"], "\n".join(report["faults"][:3])
    assert sum(report["counts"].values()) == total
    assert report["grown"] < 64 * 2**20
    for what, number in report["counts"].items():
        tally(f"fuzzed {what}", number)
    tally("seconds that the slowest of them took (rounded up)", int(report["slowest"]) + 1)
