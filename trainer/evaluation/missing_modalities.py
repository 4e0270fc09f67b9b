"""Completions of a missing modality: zeros, the model's own encoders, or iterative sampling (eq. 11)."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.shards.shard import Modality
from trainer.models.interface import LatentModel
from trainer.nn.presence import present_rows
from trainer.nn.rng import Noise

Fill = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def completer(completion: str, model: nn.Module, noise: Noise, modalities: Sequence[Modality], iterations: int) -> Fill:
    """A function that turns the given modalities into the classifier's input.

    What a row lacks of the given modalities is completed like the others; it is zeros already.
    """
    if completion in ("none", "encoders"):
        return lambda x: x
    if completion == "zeros":
        return lambda x: {m.name: x.get(m.name, _zeros(x, m.width)) for m in modalities}
    return lambda x: iterate(cast(LatentModel, model), noise, x, modalities, iterations)


def _zeros(x: Mapping[str, Tensor], width: int) -> Tensor:
    """Zeros `[R, B, width]` for the batch of x."""
    reference = next(iter(x.values()))
    return reference.new_zeros(*reference.shape[:-1], width)


def iterate(
    model: LatentModel, noise: Noise, x: Mapping[str, Tensor], modalities: Sequence[Modality], iterations: int
) -> dict[str, Tensor]:
    """Completes x by iterative sampling (eq. 11): starting from noise, alternates a ~ q(a|X) and missing x ~ p(x|a).

    The initial noise fits the distribution of the modality: random bits, absolute values of normal samples, or normal
    samples.
    """

    def completed(name: str, values: Tensor) -> Tensor:
        """What is known of a modality, with these values where it is missing."""
        rows = present_rows(x, name)
        return (
            values if name not in x else x[name] if rows is None else torch.where(rows.unsqueeze(-1), x[name], values)
        )

    full = {}
    for m in modalities:
        if m.name in x and present_rows(x, m.name) is None:
            full[m.name] = x[m.name]
            continue
        shape = _zeros(x, m.width).shape
        if m.distribution == "bernoulli":
            values = (noise.uniform(shape) < 0.5).float()
        else:
            values = noise.normal(shape).abs() if m.distribution == "nonnegative" else noise.normal(shape)
        full[m.name] = completed(m.name, values)
    missing = [m.name for m in modalities if m.name not in x or present_rows(x, m.name) is not None]
    for _ in range(iterations):
        latent = model.encode(full).sample()
        full |= {name: completed(name, model.decode(latent, name).sample()) for name in missing}
    return full
