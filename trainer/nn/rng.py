"""Random numbers for a stack of replicas: one generator each, so a replica's noise never depends on its neighbours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_for(seed: int, purpose: str, count: int = 0) -> np.random.SeedSequence:
    """An independent seed for each (seed, purpose, count); purposes are the batch order, the initial weights, ..."""
    return np.random.SeedSequence([seed, count, *purpose.encode()])


class Noise:
    """The random streams of R replicas, on one device.

    Args:
        seeds: one seed per replica; a replica's streams depend on its own seed alone.
        device: where samples are drawn. Initial weights are drawn on the CPU, so they are the same on every device.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(seeds)
        self.replicas = len(seeds)
        self.device = torch.device(device)
        self.generators = [self._generator(seed, "noise", self.device) for seed in seeds]
        self._initial = [self._generator(seed, "initial weights", torch.device("cpu")) for seed in seeds]
        self._rows: tuple[int, ...] | None = None

    @contextmanager
    def separate_streams(self, purpose: str) -> Iterator[None]:
        """A context in which samples come from fresh streams for this purpose, and the usual ones do not advance."""
        usual = self.generators
        self.generators = [self._generator(seed, purpose, self.device) for seed in self.seeds]
        try:
            yield
        finally:
            self.generators = usual

    @contextmanager
    def limit_rows(self, rows: Sequence[int]) -> Iterator[None]:
        """A context in which replica r draws only for the first `rows[r]` of the B rows; its padding rows get zeros.

        A replica's streams thus advance as they would without neighbours, even if their batches are longer.
        """
        self._rows = tuple(rows)
        try:
            yield
        finally:
            self._rows = None

    @staticmethod
    def _generator(seed: int, purpose: str, device: torch.device) -> torch.Generator:
        state = seed_for(seed, purpose).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(state) >> 1)

    def _draw(self, shape: Sequence[int], method: str, **options: Any) -> Tensor:
        """Draws `[R, ...]`, or `[K, R, ...]` if the shape has four axes, with the named in-place method of a tensor."""
        classes = shape[:-3]
        replicas, rest = shape[len(classes)], shape[len(classes) + 1 :]
        sample = torch.empty(replicas, *classes, *rest, device=self.device)
        rows = self._rows or (sample.shape[-2],) * replicas
        for generator, values, count in zip(self.generators, sample.unbind(0), rows, strict=True):
            if count == values.shape[-2]:
                getattr(values, method)(generator=generator, **options)
                continue
            values.zero_()
            if count:
                drawn = values.new_empty(*classes, count, *rest[1:])
                values[..., :count, :] = getattr(drawn, method)(generator=generator, **options)
        return sample.transpose(0, 1) if classes else sample

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Samples of N(0, 1)."""
        return self._draw(shape, "normal_")

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Samples of U[0, 1)."""
        return self._draw(shape, "uniform_")

    def gumbel(self, shape: Sequence[int]) -> Tensor:
        """Samples of the standard Gumbel distribution, as -log of Exp(1)."""
        exponential = self._draw(shape, "exponential_")
        return -exponential.clamp_min_(torch.finfo(exponential.dtype).tiny).log_()  # a float32 draw can be exactly 0

    def initial_uniform(self, shape: Sequence[int], limit: float) -> Tensor:
        """Samples of U(-limit, limit), `[R, *shape]`; each replica's come from its own seed."""
        return torch.stack([torch.empty(*shape).uniform_(-limit, limit, generator=g) for g in self._initial])

    def state(self, replica: int) -> Tensor:
        """The state of one replica's generator, as bytes."""
        return self.generators[replica].get_state()

    def set_state(self, replica: int, state: Tensor) -> None:
        """Restores the state of one replica's generator."""
        self.generators[replica].set_state(state)
