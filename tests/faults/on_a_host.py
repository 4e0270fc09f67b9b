"""Runs in a network namespace that stands for a host: `command LOG ARGUMENTS...`, or loaded by a Dask worker.

The tiny network is in place, and a frame takes its time; a worker writes down that it was used.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def prepare() -> None:
    from tiny_vgg import TinyVgg

    from pipeline import vgg, washington
    from pipeline.washington import read_frame

    used = os.environ.get("MMSSL_TEST_USED")

    def slow(*given: Any, **named: Any) -> Any:
        if used:
            Path(used).touch()
        time.sleep(float(os.environ.get("MMSSL_TEST_SLOW", "0")))
        return read_frame(*given, **named)

    vgg.vgg16 = TinyVgg
    washington.read_frame = slow


def dask_setup(worker: object) -> None:  # noqa: ARG001
    """What a Dask worker calls that was started with `--preload`."""
    prepare()


if __name__ == "__main__":
    prepare()
    import cli

    sys.argv = ["mmssl", *sys.argv[1:]]
    cli.main()
