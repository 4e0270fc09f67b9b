"""The paper's network notation (appendix A.1) as data, and its modules with a replica axis.

    D512BR       linear to 512 units, batch normalisation, ReLU
    D10          linear to 10 units
    Dropout0.5   dropout at rate 0.5
    I-J          J after I
    (I, J)       the outputs of I and J, concatenated
    MLP, D128    f_MLP, then the linear output layer(s) to 128 units

In a template `X` stands for one branch per modality, `x` for the one modality at hand, `DK` for as many units as there
are classes and `Dx` for the width of modality `x`; `expand` replaces them.

Every parameter has a leading axis R (independent replicas); activations are `[R, B, F]`, or `[K, R, B, F]` where a
part of the network is evaluated for each of K classes.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UsageError
from trainer.nn.rng import Noise

_TOKEN = re.compile(r"\s*([(),-]|[^\s(),-]+)")
_DENSE = re.compile(r"D([1-9]\d*|K|x)(BR)?")
_DROPOUT = re.compile(r"Dropout(0?\.\d*[1-9]\d*)")


@dataclass(frozen=True)
class Dense:
    """`Dk` or `DkBR`; `units` is a number, or `K` or `x` in a template."""

    units: str
    batch_norm_relu: bool = False

    def __str__(self) -> str:
        return f"D{self.units}{'BR' * self.batch_norm_relu}"


@dataclass(frozen=True)
class Dropout:
    rate: float

    def __str__(self) -> str:
        return f"Dropout{np.format_float_positional(self.rate)}"


@dataclass(frozen=True)
class Chain:
    """A source (an input's name, or the concatenation of chains) followed by layers."""

    source: "str | tuple[Chain, ...]"
    layers: tuple[Dense | Dropout, ...] = ()

    def __str__(self) -> str:
        source = self.source if isinstance(self.source, str) else f"({', '.join(map(str, self.source))})"
        return "-".join([source, *map(str, self.layers)])


@dataclass(frozen=True)
class Notation:
    """`MLP, Dk`: the hidden network and the width of its linear output."""

    mlp: Chain
    output: Dense

    def __str__(self) -> str:
        return f"{self.mlp}, {self.output}"

    @property
    def units(self) -> int:
        """
        Raises:
            UsageError: a template's `DK` or `Dx`, where a number is needed.
        """
        if not self.output.units.isdigit():
            raise UsageError(f"the network '{self}' must end in a number of units, not in {self.output}")
        return int(self.output.units)


def parse(text: str) -> Notation:
    """Reads `(z, y)-D512BR-D512BR, D128`.

    Raises:
        UsageError: the text is not in the notation.
    """
    tokens = _TOKEN.findall(text)

    def fail(why: str) -> UsageError:
        return UsageError(
            f"the network '{text}' is not in the notation: {why}", "an example: (z, y)-D512BR-D512BR, D128"
        )

    def take(expected: str | None = None) -> str:
        if not tokens or (expected is not None and tokens[0] != expected):
            raise fail(f"expected {expected or 'more'}, got {tokens[0] if tokens else 'the end'}")
        return cast(str, tokens.pop(0))

    def layer() -> Dense | Dropout:
        token = take()
        if match := _DENSE.fullmatch(token):
            return Dense(match[1], match[2] is not None)
        if match := _DROPOUT.fullmatch(token):
            return Dropout(float(match[1]))
        raise fail(f"'{token}' is no layer")

    def chain() -> Chain:
        source: str | tuple[Chain, ...]
        if tokens and tokens[0] == "(":
            take("(")
            parts = [chain()]
            while tokens and tokens[0] == ",":
                take(",")
                parts.append(chain())
            take(")")
            source = tuple(parts)
        else:
            source = take()
            if source in "),-":
                raise fail(f"an input's name is missing before '{source}'")
        layers = []
        while tokens and tokens[0] == "-":
            take("-")
            layers.append(layer())
            if isinstance(layers[-1], Dense) and not layers[-1].units.isdigit():
                raise fail(f"{layers[-1]} can only be its output")
        return Chain(source, tuple(layers))

    mlp = chain()
    take(",")
    output = layer()
    if tokens:
        raise fail(f"'{tokens[0]}' follows its end")
    if not isinstance(output, Dense) or output.batch_norm_relu:
        raise fail("it must end in a plain linear output, such as D128")
    return Notation(mlp, output)


def expand(template: Notation, modalities: Mapping[str, int], classes: int, modality: str | None = None) -> Notation:
    """A template with `X`, `x`, `DK` and `Dx` replaced.

    Args:
        modalities: width of each modality, in order; `X` becomes one branch for each.
        classes: K.
        modality: what `x` stands for, where the network belongs to one modality.
    """

    def one(chain: Chain) -> list[Chain]:
        if chain.source == "X":
            return [Chain(name, chain.layers) for name in modalities]
        if chain.source == "x" and modality is not None:
            return [Chain(modality, chain.layers)]
        if isinstance(chain.source, str):
            return [chain]
        parts = tuple(part for inner in chain.source for part in one(inner))
        return [Chain(parts, chain.layers)]

    branches = one(template.mlp)
    mlp = branches[0] if len(branches) == 1 else Chain(tuple(branches))
    units = template.output.units
    if units == "K":
        units = str(classes)
    elif units == "x":
        if modality is None:
            raise UsageError(f"the network '{template}' ends in Dx, but belongs to no single modality")
        units = str(modalities[modality])
    return Notation(mlp, Dense(units))


class ReplicaLinear(nn.Module):
    """R linear layers as one batched matrix product: `[R, B, in] -> [R, B, out]`. Glorot-uniform weights, zero bias.

    Before batch normalisation there is no bias: the batch's mean takes it away again, and its gradient is rounding
    error alone, which Adam would scale up to whole steps, different ones in every stack.
    """

    def __init__(self, inputs: int, outputs: int, noise: Noise, bias: bool = True) -> None:
        super().__init__()
        limit = math.sqrt(6 / (inputs + outputs))
        self.weight = nn.Parameter(noise.initial_uniform((inputs, outputs), limit))
        self.bias = nn.Parameter(torch.zeros(noise.replicas, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:  # a stack of one, without its axis
            weight = self.weight.squeeze(0)
            return x @ weight if self.bias is None else torch.addmm(self.bias.squeeze(0), x, weight)
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias.unsqueeze(1), x, self.weight)


class ReplicaBatchNorm(nn.Module):
    """Batch normalisation over B for each replica: `[R, B, F] -> [R, B, F]`.

    In training the batch's own statistics normalise; the running ones, which evaluation uses, follow it unless
    `frozen_statistics` says otherwise.
    """

    momentum = 0.1
    epsilon = 1e-5
    mean: Tensor
    variance: Tensor

    def __init__(self, features: int, replicas: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(replicas, features))
        self.shift = nn.Parameter(torch.zeros(replicas, features))
        self.register_buffer("mean", torch.zeros(replicas, features))
        self.register_buffer("variance", torch.ones(replicas, features))
        self.frozen = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            scale = self.scale * torch.rsqrt(self.variance + self.epsilon)
            result = torch.addcmul((self.shift - self.mean * scale).unsqueeze(1), x, scale.unsqueeze(1)).to(x.dtype)
            return result.view(x.shape)
        if x.dim() == 2:  # a stack of one, without its axis
            return self._one(x, *(own.squeeze(0) for own in (self.mean, self.variance, self.scale, self.shift)))
        return self._together(x) if x.is_cuda else self._each(x)

    def _one(self, x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """The library's own kernel for one replica, `[B, F]`; cuDNN's is left aside (times: results/README.md)."""
        if self.frozen:
            return torch.batch_norm(x, scale, shift, None, None, True, self.momentum, self.epsilon, False)
        return torch.batch_norm(x, scale, shift, mean, variance, True, self.momentum, self.epsilon, False)

    def _each(self, x: Tensor) -> Tensor:
        """The same replica by replica: the fastest on a CPU."""
        own = zip(*(t.unbind(0) for t in (x, self.mean, self.variance, self.scale, self.shift)), strict=True)
        return torch.stack([self._one(*replica) for replica in own])

    def _together(self, x: Tensor) -> Tensor:
        """The same in one call, features of all replicas beside each other: the fastest on a GPU."""
        replicas, batch, features = x.shape
        joined = x.transpose(0, 1).reshape(batch, replicas * features)
        result = self._one(joined, *(t.view(-1) for t in (self.mean, self.variance, self.scale, self.shift)))
        return result.view(batch, replicas, features).transpose(0, 1)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Within it, batch normalisation leaves its running statistics alone (docs/deviations.md, 10)."""
    before = {module: module.frozen for module in model.modules() if isinstance(module, ReplicaBatchNorm)}
    for norm in before:
        norm.frozen = True
    try:
        yield
    finally:
        for norm, frozen in before.items():
            norm.frozen = frozen


class ReplicaDropout(nn.Module):
    """Dropout whose mask comes from each replica's own noise."""

    def __init__(self, rate: float, noise: Noise) -> None:
        super().__init__()
        self.rate = rate
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = self.noise.uniform((self.noise.replicas, *x.shape[-2:])).view(x.shape) >= self.rate
        return x * keep / (1 - self.rate)


class MLP(nn.Module):
    """f_MLP: a chain of layers over an input or over the concatenation of other chains; `width` is its output's."""

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
                self.layers.append(ReplicaDropout(layer.rate, noise))
                continue
            units = int(layer.units)
            self.layers.append(ReplicaLinear(self.width, units, noise, bias=not layer.batch_norm_relu))
            if layer.batch_norm_relu:
                self.layers.extend([ReplicaBatchNorm(units, noise.replicas), nn.ReLU(inplace=True)])
            self.width = units

    def forward(self, given: Mapping[str, Tensor]) -> Tensor:
        x = given[self.name] if self.name is not None else concatenate([part(given) for part in self.parts])
        return over_classes(self.layers, x) if len(self.layers) else x


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Joins `[R, B, F_i]` parts along F; where a part has a leading class axis K, the others are repeated over it."""
    classes = max((len(part) for part in parts if part.dim() == 4), default=None)
    if classes is not None:
        parts = [part if part.dim() == 4 else part.expand(classes, *part.shape) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


def over_classes(layers: nn.Module, x: Tensor) -> Tensor:
    """Applies layers to `[R, B, F]`, or to `[K, R, B, F]`: classes are folded into the batch, then unfolded.

    A stack of one goes through them without its axis, as `[B, F]`: a plain network at a plain network's cost.
    """
    if x.dim() == 3:
        return cast(Tensor, layers(x.squeeze(0)).unsqueeze(0) if len(x) == 1 else layers(x))
    classes, replicas, batch, _ = x.shape
    folded = over_classes(layers, x.transpose(0, 1).reshape(replicas, classes * batch, -1))  # [R, K * B, F]
    return folded.view(replicas, classes, batch, -1).transpose(0, 1)
