"""Random rows, and features of one or several modalities read block by block."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainer.data.similarity import Read
from trainer.nn.presence import Incomplete

ROWS = 60


def points(width: int, seed: int, rows: int = ROWS) -> Tensor:
    return torch.empty(rows, width).normal_(generator=torch.Generator().manual_seed(seed))


def reading(features: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Callable[[int], Read]:
    """Reads in blocks of a size."""

    def of(size: int) -> Read:
        spans = [slice(row, row + size) for row in range(0, len(next(iter(features.values()))), size)]
        blocks = [{m: x[s] for m, x in features.items()} for s in spans]
        if present is None:
            return lambda: blocks
        there = [{m: rows[s] for m, rows in present.items()} for s in spans]
        return lambda: [Incomplete(block, rows) for block, rows in zip(blocks, there, strict=True)]

    return of
