"""Commands as separate processes that start at once: a process with everything imported forks for each of them.

Run with `python -m` it is that process; it reads one JSON object a line and answers each with one line.
"""

import itertools
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT


class Zygote:
    """The tests' side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote"],
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if key != "MMSSL_DATA"}
            | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def start(self, *arguments: object, log: Path, slow: float = 0.0, clock: bool = False) -> int:
        """Starts a command; returns its number.

        Args:
            log: where its output goes.
            slow: extra seconds for each frame and each step of fine-tuning and of training; checkpoints are then
                written as often as possible.
            clock: the wall clock jumps whenever it is read.
        """
        given = {"argv": list(map(str, arguments)), "log": str(log), "slow": slow, "clock": clock}
        return int(self._acquire(given))

    def wait(self, process: int, seconds: float = 120) -> int:
        """Its exit code, below 0 for a signal; one that takes longer fails the test."""
        code = self._acquire({"wait": process, "seconds": seconds})
        assert code is not None, f"process {process} did not end in {seconds} seconds"
        return int(code)

    def run(self, *arguments: object, log: Path, **options: Any) -> int:
        return self.wait(self.start(*arguments, log=log, **options))

    def close(self) -> None:
        self._process.communicate(timeout=30)

    def _acquire(self, what: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def serve() -> None:
    import torch

    import cli
    from pipeline.datasets import washington
    from pipeline.features import extract, fine_tuning, vgg
    from pipeline.images import preprocess
    from tests.support.tiny_vgg import TinyVgg
    from trainer.jobs import train
    from trainer.reporting import run_tables
    from trainer.training import loop
    from trainer.training.step import Step

    assert extract
    assert preprocess
    assert run_tables
    assert train
    torch.set_num_threads(1)
    setattr(vgg, "vgg16", TinyVgg)  # noqa: B010
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        what = json.loads(line)
        if "wait" in what:
            answer = reap(what["wait"], what["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                answers.close()
                log = os.open(what["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                for descriptor in (1, 2):
                    os.dup2(log, descriptor)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                if what["slow"]:
                    fine_tuning._CHECKPOINT_SECONDS = 0.0
                    loop.CHECKPOINT_SECONDS = 0
                    slow_down(washington, "read_frame", what["slow"])
                    slow_down(fine_tuning, "seed_of", what["slow"])
                    slow_down(Step, "__call__", what["slow"])
                if what["clock"]:
                    time.time = itertools.cycle((1e9, 4e9, 5.0)).__next__
                sys.argv = ["mmssl", *what["argv"]]
                code = 1
                try:
                    cli.main()
                except SystemExit as end:
                    code = int(end.code or 0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os.write(2, f"exit {code}\n".encode())
                    sys.stdout.flush()
                    os._exit(code)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def slow_down(owner: Any, name: str, seconds: float) -> None:
    function = getattr(owner, name)
    setattr(owner, name, lambda *given, **named: (time.sleep(seconds), function(*given, **named))[1])


def reap(process: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        child, status = os.waitpid(process, os.WNOHANG)
        if child:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return None


if __name__ == "__main__":
    serve()
