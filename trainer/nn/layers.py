"""The modules behind the paper's network notation (appendix A.1), with a replica axis.

    D512BR       linear to 512 units, batch normalisation, ReLU
    D10          linear to 10 units
    Dropout0.5   dropout at rate 0.5
    I-J          I followed by J
    (I, J)       the outputs of I and J, concatenated
    MLP, D128    f_MLP, then the linear output layer(s) with 128 units

In a template, `X` stands for one branch per modality, `x` for the modality the network belongs to, `DK` for one unit
per class and `Dx` for as many units as modality `x` is wide; `trainer.nn.notation.expand` replaces them.

Every parameter has a leading axis R (independent replicas). Activations are `[R, B, F]`, or `[K, R, B, F]` where a
part of the network is evaluated for each of K classes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UsageError
from trainer.nn.notation import Chain, Dropout
from trainer.nn.rng import Noise
from trainer.nn.segments import Segments


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


class ReplicaBatchNorm(nn.Module):
    """Batch normalisation over B for each replica: `[R, B, F] -> [R, B, F]`.

    Training normalises with the statistics of the batch and updates the running ones, except within
    `frozen_statistics`. Evaluation normalises with the running statistics. Within `only_rows`, rows that are not there
    count in no statistic. A batch in two segments is normalised segment by segment, and the running statistics follow
    the second, the unlabelled rows.
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
        self.rows: Tensor | None = None  # bool [R, B]
        self.segments: Segments | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            scale = self.scale * torch.rsqrt(self.variance + self.epsilon)
            result = torch.addcmul((self.shift - self.mean * scale).unsqueeze(1), x, scale.unsqueeze(1)).to(x.dtype)
            return result.view(x.shape)
        if self.segments is None:
            return self._normalise_segment(x, self.rows, self.frozen)
        at = self.segments.labelled
        rows_l, rows_u = (None, None) if self.rows is None else (self.rows[:, :at], self.rows[:, at:])
        labelled = self._normalise_segment(x[..., :at, :], rows_l, True)
        return torch.cat([labelled, self._normalise_segment(x[..., at:, :], rows_u, self.frozen)], -2)

    def _normalise_segment(self, x: Tensor, rows: Tensor | None, frozen: bool) -> Tensor:
        if rows is not None:
            return self._normalise_some(x, rows, frozen)
        if x.dim() == 2:  # a stack of one, without its replica axis
            return self._normalise(x, *(t.squeeze(0) for t in self._own()), frozen=frozen)
        return self._normalise_together(x, frozen) if x.is_cuda else self._normalise_each(x, frozen)

    def _own(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.mean, self.variance, self.scale, self.shift

    def _normalise(
        self, x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor, *, frozen: bool
    ) -> Tensor:
        """Normalises one replica, `[B, F]`, with PyTorch's own kernel instead of cuDNN's (times: results/README.md)."""
        if frozen:
            return torch.batch_norm(x, scale, shift, None, None, True, self.momentum, self.epsilon, False)
        return torch.batch_norm(x, scale, shift, mean, variance, True, self.momentum, self.epsilon, False)

    def _normalise_each(self, x: Tensor, frozen: bool) -> Tensor:
        """Normalises replica by replica: the fastest way on a CPU."""
        replicas = zip(*(t.unbind(0) for t in (x, *self._own())), strict=True)
        return torch.stack([self._normalise(*replica, frozen=frozen) for replica in replicas])

    def _normalise_together(self, x: Tensor, frozen: bool) -> Tensor:
        """Normalises all replicas in one call, their features side by side: the fastest way on a GPU."""
        replicas, batch, features = x.shape
        joined = x.transpose(0, 1).reshape(batch, replicas * features)
        result = self._normalise(joined, *(t.view(-1) for t in self._own()), frozen=frozen)
        return result.view(batch, replicas, features).transpose(0, 1)

    def _normalise_some(self, x: Tensor, rows: Tensor, frozen: bool) -> Tensor:
        """Normalises with the statistics of some rows; a batch that has fewer than two takes the running statistics."""
        batch = x.reshape(len(rows), -1, x.shape[-1]).float()
        counts = rows.to(batch.dtype).unsqueeze(-1)  # [R, B, 1]
        number = counts.sum(1)  # [R, 1]
        mean = (counts * batch).sum(1) / number.clamp_min(1)
        variance = (counts * (batch - mean.unsqueeze(1)).square()).sum(1) / number.clamp_min(1)
        enough = number >= 2
        if not frozen:
            with torch.no_grad():
                step = self.momentum * enough.to(mean.dtype)
                self.mean.lerp_(mean.detach(), step.expand_as(mean))
                self.variance.lerp_(variance.detach() * number / (number - 1).clamp_min(1), step.expand_as(mean))
        mean, variance = torch.where(enough, mean, self.mean), torch.where(enough, variance, self.variance)
        scale = self.scale * torch.rsqrt(variance + self.epsilon)
        result = torch.addcmul((self.shift - mean * scale).unsqueeze(1), batch, scale.unsqueeze(1))
        return result.to(x.dtype).view(x.shape)


@contextmanager
def only_rows(model: nn.Module, rows: Tensor | None) -> Iterator[None]:
    """A context in which batch normalisation counts only some rows, bool `[R, B]`; all of them if `rows` is None."""
    norms = [module for module in model.modules() if isinstance(module, ReplicaBatchNorm)] if rows is not None else []
    for norm in norms:
        norm.rows = rows
    try:
        yield
    finally:
        for norm in norms:
            norm.rows = None


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """A context in which batch normalisation does not update its running statistics (docs/design/deviations.md, 10)."""
    before = {module: module.frozen for module in model.modules() if isinstance(module, ReplicaBatchNorm)}
    for norm in before:
        norm.frozen = True
    try:
        yield
    finally:
        for norm, frozen in before.items():
            norm.frozen = frozen


class ReplicaDropout(nn.Module):
    """Dropout with a mask drawn from each replica's own noise."""

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
    """f_MLP: a chain of layers on an input or on the concatenation of other chains; `width` is its output width."""

    def __init__(self, chain: Chain, widths: Mapping[str, int], noise: Noise) -> None:
        super().__init__()
        self.name = chain.source if isinstance(chain.source, str) else None
        self.segments: Segments | None = None
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
        return over_classes(self.layers, x, self.segments) if len(self.layers) else x


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Joins parts `[R, B, F_i]` along F; if one has a leading class axis K, the others are repeated along it."""
    classes = max((len(part) for part in parts if part.dim() == 4), default=None)
    if classes is not None:
        parts = [part if part.dim() == 4 else part.expand(classes, *part.shape) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


def over_classes(layers: nn.Module, x: Tensor, segments: Segments | None = None) -> Tensor:
    """Applies layers to `[R, B, F]`, or to `[K, R, B, F]`: classes are folded into the batch, then unfolded.

    Of labelled rows, only the class that was observed goes through the layers; the other classes get its result.
    A stack of one goes through them without its replica axis, as `[B, F]`: a plain network at a plain network's cost.
    """
    if x.dim() == 3:
        return cast(Tensor, layers(x.squeeze(0)).unsqueeze(0) if len(x) == 1 else layers(x))
    classes, replicas, _, width = x.shape
    at = 0 if segments is None else segments.labelled
    folded = x[:, :, at:].transpose(0, 1).reshape(replicas, -1, width)  # [R, K * U, F]
    if segments is None:
        return cast(Tensor, over_classes(layers, folded).unflatten(1, (classes, -1))).transpose(0, 1)
    folded = over_classes(layers, torch.cat([segments.of_observed_class(x), folded], 1))  # [R, L + K * U, F]
    labelled = folded[:, :at].expand(classes, -1, -1, -1)
    return torch.cat([labelled, folded[:, at:].unflatten(1, (classes, -1)).transpose(0, 1)], 2)
