"""Who watches the training."""

from typing import Protocol


class Progress(Protocol):
    """Who watches the training. One that raises Interrupted in `step` asks it to save itself and stop."""

    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...


class Silent:
    def step(self, done: int, total: int) -> None: ...

    def epoch(self, epoch: int, epochs: int, summary: str) -> None: ...
