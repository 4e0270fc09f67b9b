"""Runs what a bundle holds for other programs, in a process in which mmssl's own modules cannot be imported."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

OURS = ("mmssl", "cli", "commands", "pipeline", "trainer")
_BLOCK = "import runpy, sys\nsys.modules.update(dict.fromkeys({names!r}))\n"


def run_blocked(code: str, arguments: Sequence[object], folder: Path, also: Sequence[str] = ()) -> str:
    """What the code prints, run in a folder; importing mmssl or one of `also` fails."""
    program = _BLOCK.format(names=(*OURS, *also)) + code
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_onnx(bundle: Path, arguments: Sequence[object], folder: Path) -> list[tuple[str, float]]:
    """The classes and probabilities that a bundle's `run_onnx.py` prints, without mmssl, torch and scipy."""
    code = f"sys.argv[0] = {str(bundle / 'run_onnx.py')!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    printed = run_blocked(code, arguments, folder, ("torch", "torchvision", "scipy", "h5py"))
    return [(line.rpartition(" ")[0], float(line.rpartition(" ")[2])) for line in printed.splitlines()]


def needs_onnx() -> None:
    """Skips a test where the optional packages are missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs pip install 'mmssl[onnx]'")
