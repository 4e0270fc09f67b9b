"""Smoothness: the same prediction within a radius of every example, by virtual adversarial training."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainer.nn.labels import divergence
from trainer.nn.presence import any_present, present_rows, same_rows, some_rows, where_present
from trainer.nn.rng import Noise
from trainer.objective.views import Features

Classify = Callable[[Features], Tensor]
_PROBE, _PROBE_BF16 = 1e-2, 0.3  # lengths of the step at which the gradient is taken, as parts of the full step


def smoothness(
    classify: Classify,
    noise: Noise,
    x: Features,
    radius: float,
    rows: Tensor | None = None,
    log_q: Tensor | None = None,
    first: slice = slice(0, 0),
) -> Tensor:
    """KL(q(y|X) || q(y|X + r)) at the perturbation r that maximises it (virtual adversarial training).

    Miyato et al. 2018 (doi:10.1109/TPAMI.2018.2858821), eqs. 7 to 10 with one power iteration; r spans all modalities
    jointly. The length of r is `radius` times the mean length of the batch's examples, so one value suits data of any
    scale: 0.2 corresponds to a length of about 2 on MNIST's digits.

    Args:
        rows: which examples count, bool `[R, B]`; None for all.
        log_q: `classify(x)`, if it is known.
        first: the labelled rows, if they are to count as a batch of their own: its mean is added.
    """
    batch = next(iter(x.values())).shape[1]
    batches = [part for part in (first, slice(first.stop, batch)) if part.start != part.stop]
    with torch.no_grad():
        log_q = classify(x) if log_q is None else log_q.detach()
        lengths = [_mean_length(some_rows(x, part)).expand(-1, part.stop - part.start, 1) for part in batches]
        reach = radius * torch.cat(lengths, 1)
    direction = _unit(_present(x, {m: noise.normal(value.shape) for m, value in x.items()}))
    with torch.enable_grad():
        steps = {m: (_probe(x) * reach * d).requires_grad_() for m, d in direction.items()}
        away = where_present(rows, divergence(log_q, classify(_moved(x, steps))))
        slopes = torch.autograd.grad(away.sum(), list(steps.values()))
    worst = _unit(_present(x, dict(zip(steps, slopes, strict=True))))
    moved = where_present(rows, divergence(log_q, classify(_moved(x, {m: reach * d for m, d in worst.items()}))))
    return torch.stack([moved[:, part].mean(-1) for part in batches]).sum(0)


def _length(x: Features) -> Tensor:
    """The Euclidean length of each example over all its modalities, `[R, B, 1]`."""
    return torch.stack([value.square().sum(-1) for value in x.values()]).sum(0).sqrt().unsqueeze(-1)


def _mean_length(x: Features) -> Tensor:
    """The mean length of the examples that have any of these modalities, `[R, 1, 1]`."""
    rows = any_present(x)
    if rows is None:
        return _length(_present(x, x)).mean(-2, keepdim=True)
    number = rows.sum(-1).clamp_min(1)[:, None, None]
    return _length(_present(x, x)).sum(-2, keepdim=True) / number


def _probe(x: Features) -> float:
    """How long the first step is: long enough for what it changes to stand out from the rounding of products.

    A hundredth drowns in that of bfloat16: the perturbation was worth half as much, and the training cost accuracy
    (results/2026-11-28-precision). TF32 rounds little enough.
    """
    return _PROBE_BF16 if torch.is_autocast_enabled(next(iter(x.values())).device.type) else _PROBE


def _unit(direction: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scales each example's direction to length 1 over all its modalities; a direction of length 0 stays 0.

    Where predictions are very confident, slopes are so small that their squares would be 0, so they are first scaled up
    by a power of two, which rounds nothing.
    """
    largest = torch.stack([d.abs().amax(-1, keepdim=True) for d in direction.values()]).amax(0)
    mantissa = torch.frexp(largest).mantissa
    power = torch.where(mantissa > 0, largest / mantissa, torch.ones_like(largest))
    scaled = {m: d / power for m, d in direction.items()}
    length = _length(scaled)
    return {m: d / length.clamp_min(torch.finfo(d.dtype).tiny) for m, d in scaled.items()}


def _present(x: Features, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A direction without what an example lacks."""
    rows = {m: present_rows(x, m) for m in x}
    return {m: d if (there := rows[m]) is None else d * there.unsqueeze(-1) for m, d in direction.items()}


def _moved(x: Features, steps: Mapping[str, Tensor]) -> Features:
    return same_rows(x, {m: value + steps[m] for m, value in x.items()})
