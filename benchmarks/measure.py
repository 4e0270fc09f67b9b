"""Fair timing: a separate warm-up, synchronisation with the device, candidates in turn, medians and spreads."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from trainer.jobs.environment import environment

CALLS_PER_TURN = 3


def in_turn(
    candidates: Mapping[str, Callable[[], object]], device: torch.device, rounds: int = 20, warm_up: int = 3
) -> dict[str, list[float]]:
    """The seconds of each measured call of each candidate.

    The candidates take turns, so that a slow moment of the machine affects all of them. A turn is one call that warms
    the caches, as the previous step does in training, and three calls that are measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + rounds):
        for name, call in candidates.items():
            call()
            for _ in range(CALLS_PER_TURN):
                wait(device)
                start = time.perf_counter()
                call()
                wait(device)
                if turn >= warm_up:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def wait(device: torch.device) -> None:
    """Waits until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def middle(seconds: list[float]) -> float:
    """The median."""
    return statistics.median(seconds)


def spread(seconds: list[float]) -> float:
    """Half the interquartile range, divided by the median."""
    low, _, high = statistics.quantiles(seconds, n=4)
    return (high - low) / 2 / middle(seconds)


def matrix_product(device: torch.device, size: int = 2048) -> Callable[[], object]:
    """A large float32 product in the current precision, as a measure of the machine: `2 * size ** 3` operations."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    out = torch.empty(size, size, device=device)
    return lambda: torch.mm(a, b, out=out)


class Rows:
    """The results of a benchmark and its environment: printed as they come, and written as JSON lines at the end."""

    def __init__(self, benchmark: str, device: torch.device) -> None:
        self.base = {"benchmark": benchmark, **environment(device), "machine": platform.machine()}
        self.rows: list[dict[str, Any]] = []

    def add(self, quantity: str, value: float, goal: str = "", **more: Any) -> None:
        """Adds and prints one result."""
        row = {"what": quantity, "value": round(value, 4), "goal": goal, **more}
        self.rows.append(self.base | row)
        extra = ", ".join(f"{key} {value}" for key, value in more.items())
        print(f"{quantity}: {value:.3f}" + (f" (goal: {goal})" if goal else "") + (f"   [{extra}]" if extra else ""))

    def write(self, path: Path | None) -> None:
        """Writes the results to a file, if there is one."""
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
            print(f"wrote {path}")
