"""Rows made comparable: one vector per row, so that the product of two of them is how similar their rows are.

All modalities count alike, however wide they are: each is centred, divided by the root of its mean squared length, and
reduced to its first principal components, which keep what rows share and leave out what is noise in each alone.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainer.nn.presence import Incomplete, present_rows, same_rows, zeros_where_absent

COMPONENTS = 64  # of each modality; 20 are too few for MNIST, and from 40 to 160 little changes (docs/log/2026-11.md)
_ITERATIONS = 3
_TINY = 1e-30
Read = Callable[[], Iterable[Mapping[str, Tensor]]]


class Scale(NamedTuple):
    """A modality's mean `[D]`, the root of the mean squared length of its centred rows, and how many rows have it."""

    mean: Tensor
    length: Tensor
    rows: int


def comparable_rows(read: Read) -> Tensor:
    """A vector for each row, `[N, d]`; the product of two of them is their similarity.

    The similarity of rows that have everything is the cosine of all modalities joined. Rows that lack modalities have
    the mean of each modality's cosine, 0 where one of them lacks it: the more two rows share, the more similar they can
    be. The plain cosine of what they share would favour those that share little.

    Args:
        read: yields the rows from the first to the last, a block of each modality `[n, D_m]` at a time; it is called
            five times, so that the rows need not fit into memory.
    """
    reduced = reduced_rows(read)
    return torch.cat([_vectors(block) for block in reduced()])


def reduced_rows(read: Read) -> Read:
    """Reads each modality centred, divided by the root of its mean squared length, and in its principal components.

    A modality of no more than `COMPONENTS` features keeps all of them. What a row lacks is zeros.

    Args:
        read: as in `comparable_rows`; it is called four times now, and once whenever the result is.
    """
    scales = scales_of(read())
    axes = _principal_axes(lambda: (_scaled(block, scales) for block in read()), scales)

    def reduced() -> Iterable[Mapping[str, Tensor]]:
        for block in read():
            scaled = _scaled(block, scales)
            yield same_rows(block, {m: x @ axes[m] if m in axes else x for m, x in scaled.items()})

    return reduced


def _vectors(block: Mapping[str, Tensor]) -> Tensor:
    parts = list(block.values())
    if isinstance(block, Incomplete):
        return torch.cat([normalize(x, dim=-1) / math.sqrt(len(parts)) for x in parts], -1)
    return normalize(torch.cat(parts, -1), dim=-1)


def _principal_axes(read: Read, scales: Mapping[str, Scale]) -> dict[str, Tensor]:
    """An orthonormal basis of the principal components of each modality that has more features, `[D, COMPONENTS]`.

    By subspace iteration from a fixed start (Halko et al. 2011, algorithm 4.4): it takes the rows block by block. The
    components themselves are not told apart, because no cosine depends on how their space is turned.
    """
    source = torch.Generator().manual_seed(0)
    axes = {
        m: torch.empty(len(scale.mean), COMPONENTS).normal_(generator=source).to(scale.mean.device)
        for m, scale in scales.items()
        if len(scale.mean) > COMPONENTS
    }
    for _ in range(_ITERATIONS if axes else 0):
        images = {m: torch.zeros_like(basis) for m, basis in axes.items()}
        for block in read():
            for m, basis in axes.items():
                images[m] += block[m].T @ (block[m] @ basis)
        axes = {m: torch.linalg.qr(image).Q for m, image in images.items()}
    return axes


def _scaled(block: Mapping[str, Tensor], scales: Mapping[str, Scale]) -> dict[str, Tensor]:
    """Each modality, centred and scaled; zeros in the rows that lack it."""
    return {
        m: zeros_where_absent(present_rows(block, m), (x - scales[m].mean) / scales[m].length) for m, x in block.items()
    }


def scales_of(blocks: Iterable[Mapping[str, Tensor]]) -> dict[str, Scale]:
    """The scale of each modality, over the rows that have it."""
    number, total, squares = dict[str, int](), dict[str, Tensor](), dict[str, Tensor]()
    for block in blocks:
        for m, x in block.items():
            rows = present_rows(block, m)  # those that lack it are zeros, so sums need not leave them out
            number[m] = number.get(m, 0) + (len(x) if rows is None else int(rows.sum()))
            total[m] = total.get(m, 0) + x.sum(0, dtype=torch.float64)
            squares[m] = squares.get(m, 0) + x.double().square().sum(0)
    mean = {m: value / max(number[m], 1) for m, value in total.items()}
    variance = {m: (squares[m] / max(number[m], 1) - mean[m].square()).clamp_min(0).sum() for m in mean}
    return {m: Scale(mean[m].float(), variance[m].sqrt().clamp_min(_TINY).float(), number[m]) for m in mean}
