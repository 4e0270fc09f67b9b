"""The running average of a model's weights, which is evaluated and kept instead of the weights."""

from collections.abc import Iterator
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
        self.model = model
        self.tensors = {name: t.clone() for name, t in model.state_dict().items()} if wanted else {}
        self.weight = torch.ones((), device=device)

    def update(self) -> None:
        """Moves the averages towards the model's state."""
        if self.tensors:
            for name, tensor in self.model.state_dict().items():
                self.tensors[name].lerp_(tensor, self.weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the model has the averaged weights, if there are any."""
        state: dict[str, Tensor] = self.model.state_dict()
        kept = {name: state[name].clone() for name in self.tensors}
        try:
            for name, tensor in self.tensors.items():
                state[name].copy_(tensor)
            yield
        finally:
            for name, tensor in kept.items():
                state[name].copy_(tensor)
