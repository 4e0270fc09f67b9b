"""How unlike the training rows a row is, given what it has: a percentile among known rows.

A row's score is the sum of three distances, each less its mean and divided by its deviation over training rows:

    |a - a_i|              mean over the five nearest training rows i, of their latents given the same modalities
    |a/|a| - a_i/|a_i||    mean over the same rows, between directions
    -log p(x_m|a)          mean over the given modalities m, if the latent precedes the modalities in the model

a is the mean of the latent variable given the row. On digits with one class kept out of training, the sum told rows of
that class from others better than each of them, and better than the distance to the nearest neighbours in feature
space (docs/guide/predict.md). It is a mean over replicas.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from trainer.inference.card import QUANTILES

NEIGHBOURS = 5
LEAST_ROWS = 20  # of known rows, for percentiles
_TINY = 1e-6  # the least length and deviation
_GROUPS = 64


@dataclass(frozen=True)
class Passes:
    """What a model says of a batch of rows that have the same modalities.

    Attributes:
        latent: the latent variable's mean, `[R, B, Z]`.
        surprise: -log p(x_m|a), `[R, B]`, of each given modality; empty for models without it. It is NaN for rows that
            other modalities were given of.
    """

    latent: Tensor
    surprise: Mapping[str, Tensor]


@dataclass(frozen=True)
class Reference:
    """Training rows to compare with, given some modalities.

    Attributes:
        latents: `[R, n, Z]`.
        distances: mean and deviation of both distances over training rows, `[R, 2, 2]`.
        surprise: mean and deviation of -log p(x_m|a) of each modality, `[R, M, 2]`; not read for modalities that are
            not given.
    """

    latents: Tensor
    distances: Tensor
    surprise: Tensor

    def scores(self, passes: Passes, modalities: tuple[str, ...], skip: int = 0) -> Tensor:
        """The unlikeness of rows, `[B]`.

        Args:
            modalities: all of the model's, in order.
            skip: 1 for rows that are among the reference's own.
        """
        distances = nearest(passes.latent, self.latents, skip)  # [R, B, 2]
        score = ((distances - self.distances[..., 0].unsqueeze(1)) / self.distances[..., 1].unsqueeze(1)).sum(-1)
        if passes.surprise:
            columns = [modalities.index(m) for m in passes.surprise]
            mean, deviation = self.surprise[:, columns].unbind(-1)  # [R, |S|]
            surprise = torch.stack(list(passes.surprise.values()), dim=-1)  # [R, B, |S|]
            score = score + ((surprise - mean.unsqueeze(1)) / deviation.unsqueeze(1)).nanmean(-1)
        return score.mean(0)


def make_reference(passes: Passes, latents: Tensor, modalities: tuple[str, ...]) -> Reference:
    """The reference of some modalities.

    Args:
        passes: of training rows, which are among those that `latents` is of.
        latents: `[R, n, Z]`, n > NEIGHBOURS.
    """
    distances = nearest(passes.latent, latents, skip=1)
    surprise = torch.zeros(len(latents), len(modalities), 2, device=latents.device)
    surprise[..., 1] = 1
    for m, values in passes.surprise.items():
        surprise[:, modalities.index(m)] = mean_and_deviation(values[:, ~values[0].isnan()])
    return Reference(latents, mean_and_deviation(distances.transpose(1, 2)), surprise)


def mean_and_deviation(values: Tensor) -> Tensor:
    """`[..., B] -> [..., 2]`."""
    mean = values.mean(-1)
    deviation = values.std(-1, correction=0).clamp_min(_TINY)
    return torch.stack([mean, deviation], dim=-1)


def nearest(latent: Tensor, latents: Tensor, skip: int = 0) -> Tensor:
    """The mean distances `[R, B, 2]` to the nearest latents, and to their directions.

    Args:
        skip: how many of the nearest do not count: 1 where the rows are among those they are compared with.
    """
    lengths = latents.square().sum(-1)  # squared, [R, n]
    # Squared distances [R, B, n], up to what is the same for a whole row.
    squared = torch.baddbmm(lengths.unsqueeze(1), latent, latents.transpose(1, 2), alpha=-2)
    places = _smallest(squared, min(NEIGHBOURS + skip, latents.shape[1]))[..., skip:]  # [R, B, k]
    near = squared.gather(-1, places)
    theirs = lengths.unsqueeze(1).expand_as(squared).gather(-1, places)
    ours = latent.square().sum(-1, keepdim=True)
    cosine = (theirs - near) / 2 / (ours * theirs).sqrt().clamp_min(_TINY)
    distances = torch.stack([near + ours, 2 - 2 * cosine], dim=-1)
    return distances.clamp_min(0).sqrt().mean(-2)


def distances_to(latent: Tensor, latents: Tensor) -> Tensor:
    """The distance of each row's latents to each of others', `[R, B, Z], [R, n, Z] -> [B, n]`, mean over replicas."""
    distances: Tensor = torch.cdist(latent, latents).mean(0)
    return distances


def _smallest(values: Tensor, count: int) -> Tensor:
    """The places of the smallest values of each row, `[R, B, n] -> [R, B, count]`.

    Columns are divided into groups first: the k smallest values lie in the k groups with the smallest minima, and a
    minimum is found much faster than the k smallest.
    """
    columns = values.shape[-1]
    if columns < 4 * _GROUPS:
        places: Tensor = values.topk(count, dim=-1, largest=False).indices
        return places
    padded = pad(values, (0, -columns % _GROUPS), value=torch.inf).unflatten(-1, (-1, _GROUPS))
    groups = padded.amin(-2).topk(count, dim=-1, largest=False).indices.unsqueeze(-2)  # [R, B, 1, count]
    few = padded.take_along_dim(groups, dim=-1)
    among = few.flatten(-2).topk(count, dim=-1, largest=False).indices
    columns_of = torch.arange(few.shape[-2], device=values.device).unsqueeze(-1) * _GROUPS + groups
    chosen: Tensor = columns_of.flatten(-2).gather(-1, among)
    return chosen


def percentiles(scores: NDArray[np.float64]) -> tuple[float, ...]:
    """The percentiles of the scores of known rows; empty if there are too few."""
    if len(scores) < LEAST_ROWS:
        return ()
    return tuple(float(value) for value in np.quantile(scores, np.linspace(0, 1, QUANTILES)))


def percentile_of(scores: NDArray[np.float64], known: tuple[float, ...]) -> NDArray[np.float64]:
    """The share of known rows that are less unlike, in percent."""
    ordered, ranks = np.asarray(known), np.linspace(0, 100, len(known))
    return np.interp(scores, ordered, ranks)
