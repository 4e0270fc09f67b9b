"""The running average of a model's weights, which is evaluated and kept instead of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RunningAverage:
    """An exponential moving average of everything in a model's state.

    Attributes:
        tensors: the averages by name; empty if no average is wanted.
        weight: the weight of the model's state in the next update; a tensor, so that a captured graph reads its new
            value in every step.
    """

    def __init__(self, model: nn.Module, wanted: bool, device: torch.device) -> None:
        self._state: dict[str, Tensor] = model.state_dict() if wanted else {}  # asked once: the tensors stay the same
        self.tensors = {name: tensor.clone() for name, tensor in self._state.items()}
        self.weight = torch.ones((), device=device)

    def update(self) -> None:
        """Moves the averages towards the model's state."""
        for name, tensor in self._state.items():
            self.tensors[name].lerp_(tensor, self.weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the model has the averaged weights, if there are any."""
        kept = {name: tensor.clone() for name, tensor in self._state.items()}
        try:
            self._set(self.tensors)
            yield
        finally:
            self._set(kept)

    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in values.items():
            self._state[name].copy_(tensor)
