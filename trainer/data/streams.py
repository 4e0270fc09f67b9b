"""The order of the batches: endless, seeded, and without a state that a resumed run would need."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trainer.data.selection import Examples, Rows
from trainer.nn.rng import seed_for


class Stream:
    """An endless sequence of batches over some rows: a new permutation each pass, none skipped, none twice in a pass.

    The batch of a step is a function of (seed, name, step) alone: a resumed run needs no state of it.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, name: str) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self._pass = lru_cache(maxsize=2)(
            lambda count: np.random.default_rng(seed_for(seed, name, count)).permutation(rows)
        )

    def batch(self, step: int) -> Rows:
        """Rows of batch number `step`, `[B]`; one that crosses the end of a pass goes on in the next."""
        start, parts, missing = step * self.batch_size, [], self.batch_size
        while missing:
            count, offset = divmod(start, len(self.rows))
            part = self._pass(count)[offset : offset + missing]
            parts.append(part)
            start += len(part)
            missing -= len(part)
        return np.concatenate(parts)


def streams_of(examples: Sequence[Examples], name: str, seeds: Sequence[int], batch_size: int) -> list[Stream]:
    """Each replica's endless batches of its `labelled` or `unlabelled` rows."""
    rows: list[Rows] = [getattr(own, name) for own in examples]
    return [Stream(own, batch_size, seed, name) for own, seed in zip(rows, seeds, strict=True)]


def first_index(streams: Sequence[Stream], device: torch.device) -> Tensor:
    """`[R, B]` rows of the streams, to have some before any batch is known."""
    rows = np.stack([np.resize(stream.rows, stream.batch_size) for stream in streams])
    return torch.from_numpy(rows).to(device)


def write_indices(index: Tensor, streams: Sequence[Stream], number: int) -> None:
    """Writes the rows of batch `number` of each stream into `index`, `[R, B]`."""
    index.copy_(torch.from_numpy(np.stack([stream.batch(number) for stream in streams])))
