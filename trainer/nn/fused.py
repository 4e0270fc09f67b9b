"""Batch normalisation and ReLU in one Triton kernel each way, in place of some ten kernels of PyTorch's on CUDA.

A program takes a block of features of one replica's rows in one segment. It reads them for the mean, for the variance
and for the result; from the second time on they come from the cache. What is kept for the gradient is the input and the
statistics: the normalised values are computed again, and which of them ReLU has let through.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# (Triton takes annotations for its own)

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _FEATURES = 64, 32  # of a block


def batch_norm_relu(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    labelled: int,
    momentum: float,
    epsilon: float,
    frozen: bool,
) -> Tensor:
    """max(0, scale * (x - mean of x) / deviation of x + shift), with the statistics of each replica's own rows.

    The same as `trainer.nn.batch_norm.ReplicaBatchNorm` and ReLU in training, where no row is left out.

    Args:
        x: `[R, B, F]`, float32 or bfloat16; the statistics are float32.
        scale, shift: `[R, F]`.
        mean, variance: the running statistics, `[R, F]`, which move to those of the last segment unless `frozen`.
        labelled: the rows of the first of two segments, each of which has its own statistics; 0 for one segment.
        momentum: how far they move.
        epsilon: is added to the variance.
    """
    result = _BatchNormReLU.apply(x, scale, shift, mean, variance, labelled, momentum, epsilon, frozen)
    return cast(Tensor, result)


class _BatchNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        labelled: int,
        momentum: float,
        epsilon: float,
        frozen: bool,
    ) -> Tensor:
        x = x.contiguous()
        replicas, _, features = x.shape
        segments = 2 if labelled else 1
        y = torch.empty_like(x)
        mean, slope = (x.new_empty(segments, replicas, features, dtype=torch.float32) for _ in range(2))
        _forward[_grid(x, segments)](
            x, y, scale, shift, mean, slope, running_mean, running_variance,
            x.shape[1], features, labelled, momentum, epsilon, MOVES=not frozen, ROWS=_ROWS, FEATURES=_FEATURES,
        )  # fmt: skip
        ctx.save_for_backward(x, scale, shift, mean, slope)
        ctx.labelled = labelled
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, slope = ctx.saved_tensors
        of_x = torch.empty_like(x)
        of_scale, of_shift = torch.empty_like(mean), torch.empty_like(mean)
        _backward[_grid(x, len(mean))](
            x, gradient.contiguous(), scale, shift, mean, slope, of_x, of_scale, of_shift,
            x.shape[1], x.shape[2], ctx.labelled, ROWS=_ROWS, FEATURES=_FEATURES,
        )  # fmt: skip
        return of_x, of_scale.sum(0), of_shift.sum(0), *(None,) * 6


def _grid(x: Tensor, segments: int) -> tuple[int, int, int]:
    return triton.cdiv(x.shape[2], _FEATURES), x.shape[0], segments


@triton.jit
def _forward(
    x, y, scale, shift, mean, slope, running_mean, running_variance, batch, features, labelled, momentum, epsilon,
    MOVES: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """`slope` is 1 / deviation. A value that is not a number stays one, for the training loop to find."""
    feature = tl.program_id(0) * FEATURES + tl.arange(0, FEATURES)
    replica, segment, replicas = tl.program_id(1), tl.program_id(2), tl.num_programs(1)
    last = segment == tl.num_programs(2) - 1
    begin, end = tl.where(segment == 0, 0, labelled), tl.where(last, batch, labelled)
    rows = tl.cast(end - begin, tl.float32)
    first = replica.to(tl.int64) * batch * features  # a stack can have more than 2^31 values
    total = tl.zeros([FEATURES], tl.float32)
    for row in range(begin, end, ROWS):
        total += tl.sum(_block(x + first, row, end, feature, features, ROWS), 0)
    m = total / rows
    squares = tl.zeros([FEATURES], tl.float32)
    for row in range(begin, end, ROWS):
        there = (row + tl.arange(0, ROWS) < end)[:, None]
        away = tl.where(there, _block(x + first, row, end, feature, features, ROWS) - m[None, :], 0.0)
        squares += tl.sum(away * away, 0)
    s = 1 / tl.sqrt(squares / rows + epsilon)
    of_replica, inside = replica * features + feature, feature < features
    a = tl.load(scale + of_replica, inside, 0.0)
    b = tl.load(shift + of_replica, inside, 0.0)
    for row in range(begin, end, ROWS):
        normal = (_block(x + first, row, end, feature, features, ROWS) - m[None, :]) * s[None, :]
        value = normal * a[None, :] + b[None, :]
        _put(y + first, tl.where(value < 0, 0.0, value), row, end, feature, features, ROWS)
    of_segment = segment * replicas * features + of_replica
    tl.store(mean + of_segment, m, inside)
    tl.store(slope + of_segment, s, inside)
    if MOVES:
        moves = inside & last
        before = tl.load(running_mean + of_replica, moves, 0.0)
        tl.store(running_mean + of_replica, before + momentum * (m - before), moves)
        before = tl.load(running_variance + of_replica, moves, 0.0)
        tl.store(running_variance + of_replica, before + momentum * (squares / (rows - 1) - before), moves)


@triton.jit
def _backward(
    x, gradient, scale, shift, mean, slope, of_x, of_scale, of_shift, batch, features, labelled,
    ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """With n the normalised values and g the gradient where ReLU let them through:
    d scale = sum g n, d shift = sum g, d x = scale / deviation * (g - (d shift + n d scale) / rows)."""
    feature = tl.program_id(0) * FEATURES + tl.arange(0, FEATURES)
    replica, segment, replicas = tl.program_id(1), tl.program_id(2), tl.num_programs(1)
    begin = tl.where(segment == 0, 0, labelled)
    end = tl.where(segment == tl.num_programs(2) - 1, batch, labelled)
    rows = tl.cast(end - begin, tl.float32)
    first = replica.to(tl.int64) * batch * features
    of_replica, inside = replica * features + feature, feature < features
    of_segment = segment * replicas * features + of_replica
    a = tl.load(scale + of_replica, inside, 0.0)
    b = tl.load(shift + of_replica, inside, 0.0)
    m = tl.load(mean + of_segment, inside, 0.0)
    s = tl.load(slope + of_segment, inside, 0.0)
    d_scale, d_shift = tl.zeros([FEATURES], tl.float32), tl.zeros([FEATURES], tl.float32)
    for row in range(begin, end, ROWS):
        n = (_block(x + first, row, end, feature, features, ROWS) - m[None, :]) * s[None, :]
        g = _block(gradient + first, row, end, feature, features, ROWS)
        g = tl.where(n * a[None, :] + b[None, :] <= 0, 0.0, g)
        d_scale += tl.sum(g * n, 0)
        d_shift += tl.sum(g, 0)
    for row in range(begin, end, ROWS):
        n = (_block(x + first, row, end, feature, features, ROWS) - m[None, :]) * s[None, :]
        g = _block(gradient + first, row, end, feature, features, ROWS)
        g = tl.where(n * a[None, :] + b[None, :] <= 0, 0.0, g)
        value = (a * s)[None, :] * (g - (d_shift[None, :] + n * d_scale[None, :]) / rows)
        _put(of_x + first, value, row, end, feature, features, ROWS)
    tl.store(of_scale + of_segment, d_scale, inside)
    tl.store(of_shift + of_segment, d_shift, inside)


@triton.jit
def _block(values, row, end, feature, features, ROWS: tl.constexpr):
    """The values of some rows and features, `[ROWS, FEATURES]` float32; 0 beyond the last."""
    number = row + tl.arange(0, ROWS)
    inside = (number < end)[:, None] & (feature < features)[None, :]
    return tl.load(values + number[:, None] * features + feature[None, :], inside, 0.0).to(tl.float32)


@triton.jit
def _put(values, block, row, end, feature, features, ROWS: tl.constexpr):
    number = row + tl.arange(0, ROWS)
    inside = (number < end)[:, None] & (feature < features)[None, :]
    tl.store(values + number[:, None] * features + feature[None, :], block.to(values.dtype.element_ty), inside)
