"""Batch normalisation with a replica axis, and whose rows count in its statistics."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trainer.nn.segments import current_segments


@dataclass(frozen=True)
class _Statistics:
    """Which statistics batch normalisation takes in training, and whether the running ones follow.

    Attributes:
        rows: the rows that count, bool `[R, B]`; None for all of them.
    """

    rows: Tensor | None = None
    frozen: bool = False
    running: bool = False


_ORDINARY = _Statistics()
_statistics = ContextVar[_Statistics]("statistics", default=_ORDINARY)


class ReplicaBatchNorm(nn.Module):
    """Batch normalisation over B for each replica: `[R, B, F] -> [R, B, F]`.

    Training normalises with the statistics of the batch and updates the running ones, except within
    `frozen_statistics`. Evaluation normalises with the running statistics, and so does training within
    `running_statistics`. Within `only_rows`, rows that are not there count in no statistic. A batch in two segments is
    normalised segment by segment, and the running statistics follow the second, the unlabelled rows.
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

    def forward(self, x: Tensor) -> Tensor:
        statistics = _statistics.get()
        if not self.training or statistics.running:
            scale = self.scale * torch.rsqrt(self.variance + self.epsilon)
            result = torch.addcmul((self.shift - self.mean * scale).unsqueeze(1), x, scale.unsqueeze(1)).to(x.dtype)
            return result.view(x.shape)
        rows, segments = statistics.rows, current_segments()
        if segments is None:
            return self._normalise_segment(x, rows, statistics.frozen)
        at = segments.labelled
        rows_l, rows_u = (None, None) if rows is None else (rows[:, :at], rows[:, at:])
        x_l, x_u = x.split([at, x.shape[-2] - at], -2)  # one gradient for both, where two slices would add up two
        labelled = self._normalise_segment(x_l, rows_l, True)
        return torch.cat([labelled, self._normalise_segment(x_u, rows_u, statistics.frozen)], -2)

    def _normalise_segment(self, x: Tensor, rows: Tensor | None, frozen: bool) -> Tensor:
        if rows is not None:
            return self._normalise_some(x, rows, frozen)
        if x.dim() == 2:  # a stack of one, without its replica axis
            return self._normalise(x, *(t.squeeze(0) for t in self._statistics_and_scale()), frozen=frozen)
        return self._normalise_together(x, frozen) if x.is_cuda else self._normalise_each(x, frozen)

    def _statistics_and_scale(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        replicas = zip(*(t.unbind(0) for t in (x, *self._statistics_and_scale())), strict=True)
        return torch.stack([self._normalise(*replica, frozen=frozen) for replica in replicas])

    def _normalise_together(self, x: Tensor, frozen: bool) -> Tensor:
        """Normalises all replicas in one call, their features side by side: the fastest way on a GPU."""
        replicas, batch, features = x.shape
        joined = x.transpose(0, 1).reshape(batch, replicas * features)
        result = self._normalise(joined, *(t.view(-1) for t in self._statistics_and_scale()), frozen=frozen)
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


class BatchNormReLU(ReplicaBatchNorm):
    """Batch normalisation, then ReLU.

    Attributes:
        fused: what does both at once in training (`trainer.nn.fused`); None for PyTorch's own operations.
    """

    fused: Callable[..., Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        statistics, segments = _statistics.get(), current_segments()
        if self.fused is None or not self.training or statistics.running or statistics.rows is not None:
            return super().forward(x).relu_()
        stacked = x.unsqueeze(0) if x.dim() == 2 else x
        result = self.fused(
            stacked,
            *(self.scale, self.shift, self.mean, self.variance),
            labelled=0 if segments is None else segments.labelled,
            momentum=self.momentum,
            epsilon=self.epsilon,
            frozen=statistics.frozen,
        )
        return result.view(x.shape)


def fuse(model: nn.Module) -> None:
    """Has a model's batch normalisations and ReLUs done in one kernel, on a CUDA device.

    Raises:
        ImportError: Triton is not installed.
    """
    from trainer.nn.fused import batch_norm_relu

    for module in model.modules():
        if isinstance(module, BatchNormReLU):
            module.fused = batch_norm_relu


def only_rows(rows: Tensor | None) -> AbstractContextManager[None]:
    """A context in which batch normalisation counts only some rows, bool `[R, B]`; all of them if `rows` is None."""
    return _with_statistics(rows=rows)


def running_statistics() -> AbstractContextManager[None]:
    """A context in which batch normalisation takes its running statistics, as in evaluation, and leaves them alone."""
    return _with_statistics(running=True)


def frozen_statistics() -> AbstractContextManager[None]:
    """A context in which batch normalisation does not update its running statistics (docs/design/deviations.md, 10)."""
    return _with_statistics(frozen=True)


@contextmanager
def _with_statistics(**changes: Any) -> Iterator[None]:
    before = _statistics.set(replace(_statistics.get(), **changes))
    try:
        yield
    finally:
        _statistics.reset(before)
