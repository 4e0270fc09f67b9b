"""Observers of the training."""

from typing import Protocol


class Progress(Protocol):
    """An observer of the training. It can raise Interrupted in `step` to make training save its progress and stop."""

    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...


class Silent:
    """An observer that does nothing."""

    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...
