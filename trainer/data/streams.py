"""The order of the batches: endless, seeded and stateless, so that a resumed run needs nothing to continue it."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trainer.data.selection import Examples, Rows
from trainer.nn.rng import seed_for


class Stream:
    """An endless sequence of batches over some rows, which are permuted again for each pass.

    A pass contains each row exactly once. The batch of a step depends on (seed, name, step) alone, so a resumed run
    needs no saved state.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, name: str) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self._pass = lru_cache(maxsize=2)(
            lambda pass_number: np.random.default_rng(seed_for(seed, name, pass_number)).permutation(rows)
        )

    def batch(self, step: int) -> Rows:
        """The rows of batch number `step`, `[B]`; a batch at the end of a pass continues into the next pass."""
        start, parts, missing = step * self.batch_size, [], self.batch_size
        while missing:
            pass_number, offset = divmod(start, len(self.rows))
            part = self._pass(pass_number)[offset : offset + missing]
            parts.append(part)
            start += len(part)
            missing -= len(part)
        return np.concatenate(parts)


def streams_of(examples: Sequence[Examples], name: str, seeds: Sequence[int], batch_size: int) -> list[Stream]:
    """Each replica's endless batches of its `labelled` or `unlabelled` rows."""
    rows_by_replica: list[Rows] = [getattr(replica, name) for replica in examples]
    return [Stream(rows, batch_size, seed, name) for rows, seed in zip(rows_by_replica, seeds, strict=True)]


def first_index(streams: Sequence[Stream], device: torch.device) -> Tensor:
    """Rows `[R, B]` of the streams to start with, before any batch is known."""
    rows = np.stack([np.resize(stream.rows, stream.batch_size) for stream in streams])
    return torch.from_numpy(rows).to(device)


def write_indices(index: Tensor, streams: Sequence[Stream], number: int) -> None:
    """Writes the rows of batch `number` of each stream into `index`, `[R, B]`."""
    index.copy_(torch.from_numpy(np.stack([stream.batch(number) for stream in streams])))
