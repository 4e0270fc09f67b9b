"""Completions of a missing modality: zeros, the model's own encoders, or iterative sampling (eq. 11)."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from pipeline.shards.shard import Modality
from trainer.models.interface import LatentModel
from trainer.nn.rng import Noise


def completer(
    completion: str, model: nn.Module, noise: Noise, modalities: Sequence[Modality], iterations: int
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A function that turns the given modalities into the classifier's input."""
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
    full = {}
    for m in modalities:
        if m.name in x:
            full[m.name] = x[m.name]
            continue
        shape = _zeros(x, m.width).shape
        if m.distribution == "bernoulli":
            full[m.name] = (noise.uniform(shape) < 0.5).float()
        else:
            full[m.name] = noise.normal(shape).abs() if m.distribution == "nonnegative" else noise.normal(shape)
    missing = [m.name for m in modalities if m.name not in x]
    for _ in range(iterations):
        latent = model.encode(full).sample()
        full |= {name: model.decode(latent, name).sample() for name in missing}
    return full
