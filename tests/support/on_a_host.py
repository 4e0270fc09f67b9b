"""Runs in a network namespace that stands for a host: a command, or what a Dask worker loads when it starts.

The tiny network replaces VGG16. A worker records that it was used, and is slowed down so that it can be caught in the
midst of its work; if asked to, it never finishes a frame.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any


def prepare() -> None:
    """Follows the environment: MMSSL_TEST_USED is a file that is created when a frame or a step begins,
    MMSSL_TEST_STICKS the number of frames after which none finishes, MMSSL_TEST_SLOW the extra seconds of a step.
    """
    from pipeline.datasets import washington
    from pipeline.features import fine_tuning, vgg
    from pipeline.features.noise import seed_of
    from tests.support.tiny_vgg import TinyVgg
    from tests.support.zygote import slow_down
    from trainer.training import loop
    from trainer.training.step import Step

    used = os.environ.get("MMSSL_TEST_USED")
    left = iter(range(int(os.environ.get("MMSSL_TEST_STICKS", "1000000"))))

    def marked(function: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            if used:
                Path(used).touch()
            return function(*given, **named)

        return call

    read_frame = washington.read_frame

    def sticks(*given: Any, **named: Any) -> Any:
        if next(left, None) is None:
            time.sleep(600)
        return read_frame(*given, **named)

    setattr(vgg, "vgg16", TinyVgg)  # noqa: B010
    washington.read_frame = marked(sticks)
    setattr(fine_tuning, "seed_of", marked(seed_of))  # noqa: B010
    Step.__call__ = marked(Step.__call__)  # type: ignore[method-assign]
    slow = float(os.environ.get("MMSSL_TEST_SLOW", "0"))
    if slow:
        fine_tuning._CHECKPOINT_SECONDS = 0.0
        loop.CHECKPOINT_SECONDS = 0
        slow_down(fine_tuning, "seed_of", slow)
        slow_down(Step, "__call__", slow)


def dask_setup(worker: object) -> None:  # noqa: ARG001
    """What a Dask worker calls that was started with `--preload`."""
    prepare()


if __name__ == "__main__":
    prepare()
    import cli

    sys.argv = ["mmssl", *sys.argv[1:]]
    cli.main()
