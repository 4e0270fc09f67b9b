"""The modules behind the paper's network notation (appendix A.1), with a replica axis.

    D512BR         linear to 512 units, batch normalisation, ReLU
    D10            linear to 10 units
    Dropout0.5     dropout at rate 0.5
    RowDropout0.5  dropout at rate 0.5 of all units of a row, or none
    I-J            I followed by J
    (I, J)         the outputs of I and J, concatenated
    MLP, D128      f_MLP, then the linear output layer(s) with 128 units

In a template, `X` stands for one branch per modality, `x` for the modality the network belongs to, `DK` for one unit
per class and `Dx` for as many units as modality `x` is wide; `trainer.nn.notation.expand` replaces them.

Every parameter has a leading axis R (independent replicas). Activations are `[R, B, F]`, or `[K, R, B, F]` where a
part of the network is evaluated for each of K classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UsageError
from trainer.nn.batch_norm import BatchNormReLU
from trainer.nn.notation import Chain, Dropout
from trainer.nn.rng import Noise
from trainer.nn.segments import current_segments


class ReplicaLinear(nn.Module):
    """R linear layers as one batched matrix product: `[R, B, in] -> [R, B, out]`. Glorot-uniform weights, zero bias.

    A layer before batch normalisation has no bias: subtracting the batch's mean would cancel it, so its gradient would
    be pure rounding error, which Adam would scale up to full steps that differ from stack to stack.
    """

    def __init__(self, inputs: int, outputs: int, noise: Noise, bias: bool = True) -> None:
        super().__init__()
        limit = math.sqrt(6 / (inputs + outputs))
        self.weight = nn.Parameter(noise.initial_uniform((inputs, outputs), limit))
        self.bias = nn.Parameter(torch.zeros(noise.replicas, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:  # a stack of one, without its replica axis
            weight = self.weight.squeeze(0)
            return x @ weight if self.bias is None else torch.addmm(self.bias.squeeze(0), x, weight)
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias.unsqueeze(1), x, self.weight)


class ReplicaDropout(nn.Module):
    """Dropout with a mask drawn from each replica's own noise.

    Attributes:
        of_rows: whether a row loses all of its units or none. At the end of a modality's branch it loses this modality
            as a whole, so that what joins the branches learns to do without any of them (Neverova et al. 2016,
            arXiv:1501.00102).
    """

    def __init__(self, rate: float, noise: Noise, of_rows: bool = False) -> None:
        super().__init__()
        self.rate, self.noise, self.of_rows = rate, noise, of_rows

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rows, units = x.shape[-2], 1 if self.of_rows else x.shape[-1]
        keep = self.noise.uniform((self.noise.replicas, rows, units)).view(*x.shape[:-1], units) >= self.rate
        return x * keep / (1 - self.rate)


class MLP(nn.Module):
    """f_MLP: a chain of layers on an input or on the concatenation of other chains; `width` is its output width."""

    def __init__(self, chain: Chain, widths: Mapping[str, int], noise: Noise) -> None:
        super().__init__()
        self.name = chain.source if isinstance(chain.source, str) else None
        self.parts = nn.ModuleList()
        if isinstance(chain.source, str):
            if chain.source not in widths:
                raise UsageError(f"the network '{chain}' names the input '{chain.source}'; known: {', '.join(widths)}")
            self.width = widths[chain.source]
        else:
            parts = [MLP(part, widths, noise) for part in chain.source]
            self.parts.extend(parts)
            self.width = sum(part.width for part in parts)
        self.layers = nn.Sequential()
        for layer in chain.layers:
            if isinstance(layer, Dropout):
                self.layers.append(ReplicaDropout(layer.rate, noise, layer.of_rows))
                continue
            units = int(layer.units)
            self.layers.append(ReplicaLinear(self.width, units, noise, bias=not layer.batch_norm_relu))
            if layer.batch_norm_relu:
                self.layers.extend([BatchNormReLU(units, noise.replicas), nn.Identity()])  # for the weights' names
            self.width = units

    def forward(self, given: Mapping[str, Tensor]) -> Tensor:
        x = given[self.name] if self.name is not None else concatenate([part(given) for part in self.parts])
        return over_classes(self.layers, x) if len(self.layers) else x


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Joins parts `[R, B, F_i]` along F; if one has a leading class axis K, the others are repeated along it."""
    classes = max((len(part) for part in parts if part.dim() == 4), default=None)
    if classes is not None:
        parts = [part if part.dim() == 4 else part.expand(classes, *part.shape) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


def over_classes(layers: nn.Module, x: Tensor) -> Tensor:
    """Applies layers to `[R, B, F]`, or to `[K, R, B, F]`: classes are folded into the batch, then unfolded.

    Of a batch in segments, only the class that was observed goes through the layers; the other classes get its result.
    A stack of one goes through them without its replica axis, as `[B, F]`: a plain network at a plain network's cost.
    """
    if x.dim() == 3:
        return cast(Tensor, layers(x.squeeze(0)).unsqueeze(0) if len(x) == 1 else layers(x))
    classes, replicas, _, width = x.shape
    segments = current_segments()
    at = 0 if segments is None else segments.labelled
    folded = x[:, :, at:].transpose(0, 1).reshape(replicas, -1, width)  # [R, K * U, F]
    if segments is None:
        return cast(Tensor, over_classes(layers, folded).unflatten(1, (classes, -1))).transpose(0, 1)
    folded = over_classes(layers, torch.cat([segments.of_observed_class(x), folded], 1))  # [R, L + K * U, F]
    labelled = folded[:, :at].expand(classes, -1, -1, -1)
    return torch.cat([labelled, folded[:, at:].unflatten(1, (classes, -1)).transpose(0, 1)], 2)
