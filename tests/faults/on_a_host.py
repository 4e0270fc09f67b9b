"""Runs in a network namespace that stands for a host: a command, or what a Dask worker loads when it starts.

The tiny network is in place. A worker writes down that it was used, and where it is told to, it never ends a frame.
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
    left = iter(range(int(os.environ.get("MMSSL_TEST_STICKS", "1000000"))))

    def slow(*given: Any, **named: Any) -> Any:
        if used:
            Path(used).touch()
        if next(left, None) is None:
            time.sleep(600)
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
