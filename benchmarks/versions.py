"""CPU time of a training step in several versions of the project, each in a process of its own, in turn.

    python -m benchmarks.versions PRESET [--late] [--rounds 7] [--out FILE] FOLDER:PRECISION:R ...

SS-HMVAE-kl with PRESET: `paper` or `recommended` in the shape of hmMNIST, or `digits`, the recommended settings in the
shape of hm-digits; `--late` for the steps after the onset of the terms beyond the paper. The first candidate is what
the others are compared with:

    git worktree add /tmp/before COMMIT
    python -m benchmarks.versions paper /tmp/before:fp32:1 .:fp32:1 .:bf16:1 .:bf16:4
"""

import argparse
import os
import runpy
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

SHAPES = {"paper": (60_000, 392), "recommended": (60_000, 392), "digits": (1437, 32)}  # rows, width of a modality
LABELLED, CLASSES = 100, 10
STEPS = {"digits": 20}  # of a turn; of wide networks, 3
LATE = 200  # steps before the last
MODEL = "sshmvae-kl"


@dataclass
class Candidate:
    """A process that takes steps of one version when it is told to."""

    name: str
    process: "subprocess.Popen[str]"
    milliseconds: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Takes some steps."""
        cast(IO[str], self.process.stdin).write("\n")
        cast(IO[str], self.process.stdin).flush()
        self.milliseconds.append(float(cast(IO[str], self.process.stdout).readline()))


def start(name: str, preset: str, late: bool) -> Candidate:
    folder, precision, replicas = name.split(":")
    process = subprocess.Popen(
        [sys.executable, __file__, preset, *(["--late"] if late else []), "--one", precision, replicas],
        env={**os.environ, "PYTHONPATH": str(Path(folder).resolve()), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Candidate(name, process)


def serve(preset: str, late: bool, precision: str, replicas: int) -> None:
    """Takes steps of the version on Python's path, for each line of the input, and prints the time of a replica's."""
    import torch

    import trainer.data.machine_memory
    from pipeline.shards.shard import Modality
    from trainer.settings.presets import preset_values
    from trainer.settings.recommended import recommended
    from trainer.settings.run_settings import build
    from trainer.training import step as steps

    names = ("prepare_memory", "keep_freed_memory")  # today's, and until 28 November 2026
    next(getattr(trainer.data.machine_memory, name) for name in names if hasattr(trainer.data.machine_memory, name))()
    random_examples = runpy.run_path(str(Path(__file__).with_name("random_examples.py")))["random_examples"]  # today's
    rows, width = SHAPES[preset]
    modalities = tuple(Modality(name, width, "bernoulli") for name in ("x", "w"))
    data = random_examples(
        modalities, CLASSES, rows=rows, labelled=LABELLED, test=LABELLED, replicas=replicas, device=torch.device("cpu")
    )
    values = preset_values("mnist", MODEL) if preset == "paper" else recommended(MODEL, rows, modalities)
    values |= {"model": MODEL, "data": "random", "labels": LABELLED, "beta": 0.1, "precision": precision}
    settings = [build({**values, "seed": seed}) for seed in range(replicas)]
    # The graph of random rows says nothing, and takes minutes.
    setattr(steps, "propagated_labels", lambda *_: torch.full((replicas, rows, CLASSES), 1 / CLASSES))  # noqa: B010
    step = steps.Step(settings, data, torch.device("cpu"))
    number = step.batches.per_epoch * settings[0].epochs - LATE if late else 0
    count = STEPS.get(preset, 3)
    for _ in sys.stdin:
        begun = time.process_time()
        for _ in range(count):
            step(number)
            number += 1
        print(1000 * (time.process_time() - begun) / count / replicas, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=SHAPES)
    parser.add_argument("candidates", nargs="*", help="FOLDER:PRECISION:R")
    parser.add_argument("--late", action="store_true", help="after the onset of the terms beyond the paper")
    parser.add_argument("--rounds", type=int, default=7, help="number of turns per candidate")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    parser.add_argument("--one", nargs=2, metavar=("PRECISION", "R"), help="take steps in this process")
    options = parser.parse_intermixed_args()
    if options.one:
        serve(options.preset, options.late, options.one[0], int(options.one[1]))
        return
    measure(options.preset, options.late, options.candidates, options.rounds, options.out)


def measure(preset: str, late: bool, names: list[str], rounds: int, out: Path | None) -> None:
    import torch

    from benchmarks.measure import Rows, middle, spread

    candidates = [start(name, preset, late) for name in names]
    for _ in range(1 + rounds):
        for candidate in candidates:
            candidate.turn()
    rows = Rows("versions", torch.device("cpu"))
    first = middle(candidates[0].milliseconds[1:])
    for candidate in candidates:
        value = middle(candidate.milliseconds[1:])
        rows.add(f"milliseconds a step and replica: {preset}{', late' if late else ''}, {candidate.name}", value,
                 ratio=round(value / first, 3), spread=round(spread(candidate.milliseconds[1:]), 3))  # fmt: skip
        cast(IO[str], candidate.process.stdin).close()
        candidate.process.wait()
    rows.write(out)


if __name__ == "__main__":
    main()
