"""Randomness in fine-tuning: every draw is a function of a seed and a purpose, never of the global random state."""

import hashlib

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth  # type: ignore[import-untyped]


def seed_of(*purpose: object) -> int:
    """A seed for one purpose, such as ("order", 0, 3, "rgb", epoch): equal purposes give equal seeds."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, purpose)).encode()).digest()[:8], "big") >> 1


class SeededDropout(nn.Module):
    """Dropout that draws its noise from its own generator."""

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.rate = rate
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self.generator)
        return x * kept / (1 - self.rate)


class SeededDepth(SeededDropout):
    """Stochastic depth (Huang et al. 2016) that draws its noise from its own generator: whole rows are dropped."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty([len(x)] + [1] * (x.ndim - 1)).bernoulli_(1 - self.rate, generator=self.generator)
        return x * kept / (1 - self.rate)


def seed_noise(network: nn.Module, device: torch.device) -> None:
    """Replaces the layers of a network that would draw from the global random state; all share one generator."""
    generator = torch.Generator(device)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout):
                setattr(parent, name, SeededDropout(layer.p, generator))
            elif isinstance(layer, StochasticDepth):
                setattr(parent, name, SeededDepth(layer.p, generator))


def generators(network: nn.Module) -> set[torch.Generator]:
    """The generators that a network draws its noise from."""
    return {layer.generator for layer in network.modules() if isinstance(layer, SeededDropout)}
