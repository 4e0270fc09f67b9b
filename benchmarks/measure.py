"""Honest clocks: warm-up apart, the device waited for, candidates in turn, medians and spreads."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from trainer.jobs.environment import environment


def in_turn(
    candidates: Mapping[str, Callable[[], object]], device: torch.device, rounds: int = 20, warm_up: int = 3
) -> dict[str, list[float]]:
    """Seconds of each call of each candidate.

    They take turns, so that a slow moment of the machine meets all; a turn is one call that warms the caches, as the
    step before does in training, and three that count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + rounds):
        for name, call in candidates.items():
            call()
            for _ in range(3):
                wait(device)
                start = time.perf_counter()
                call()
                wait(device)
                if turn >= warm_up:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def middle(seconds: list[float]) -> float:
    return statistics.median(seconds)


def spread(seconds: list[float]) -> float:
    """Half the distance between the quartiles, over the median."""
    low, _, high = statistics.quantiles(seconds, n=4)
    return (high - low) / 2 / middle(seconds)


def matrix_product(device: torch.device, size: int = 2048) -> Callable[[], object]:
    """A large float32 product in the precision now set: what the machine can do. `2 * size ** 3` operations."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    out = torch.empty(size, size, device=device)
    return lambda: torch.mm(a, b, out=out)


class Rows:
    """Results as JSON lines with the environment, printed as they come and written at the end."""

    def __init__(self, benchmark: str, device: torch.device) -> None:
        self.base = {"benchmark": benchmark, **environment(device), "machine": platform.machine()}
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, value: float, goal: str = "", **more: Any) -> None:
        row = {"what": what, "value": round(value, 4), "goal": goal, **more}
        self.rows.append(self.base | row)
        extra = ", ".join(f"{key} {value}" for key, value in more.items())
        print(f"{what}: {value:.3f}" + (f" (goal: {goal})" if goal else "") + (f"   [{extra}]" if extra else ""))

    def write(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
            print(f"wrote {path}")
