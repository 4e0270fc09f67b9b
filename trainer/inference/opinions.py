"""What trained models say of a shard's training rows: their opinions of the class, and where the rows lie.

An opinion is q(y|.) of one replica: q(y|X) of all modalities that a row has, or q(y|x_m) of one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.shards.shard import Part
from trainer.evaluation.evaluate import BATCH
from trainer.inference.network import Batch, Network
from trainer.inference.predictions import patterns
from trainer.inference.subsets import read_rows

_TINY = 1e-12
Probabilities = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Opinions:
    """What R replicas say of N rows that have up to M modalities.

    Attributes:
        joint: q(y|X), `[R, N, K]`; K is 0 for models that do not learn labels.
        single: q(y|x_m), `[R, M, N, K]`; NaN where a row lacks a modality, or has it alone.
        latent: the latent variable's mean given all that a row has, `[N, Z]`, those of all replicas side by side.
    """

    joint: Probabilities
    single: Probabilities
    latent: NDArray[np.float32]

    @cached_property
    def mean_joint(self) -> Probabilities:
        """The mean of q(y|X) over replicas, `[N, K]`: what `mmssl predict` says."""
        mean: Probabilities = self.joint.mean(0)
        return mean

    @cached_property
    def mean(self) -> Probabilities:
        """The mean of all opinions of a row, `[N, K]`: a replica's q(y|X) counts as much as its q(y|x_m) together."""
        if not self.single.shape[1]:
            return self.mean_joint
        given = self._heard
        count = np.maximum(given.sum(axis=0) * len(self.single), 1)  # [N]
        single = np.nan_to_num(self.single).sum((0, 1)) / count.reshape(-1, 1)
        some = given.any(axis=0).reshape(-1, 1)
        both: Probabilities = np.where(some, (self.mean_joint + single) / 2, self.mean_joint)
        return both

    @cached_property
    def uncertainty(self) -> NDArray[np.float64]:
        """The entropy of the mean of all opinions, `[N]`, in nats: uncertain opinions, or certain ones that differ."""
        return entropy(self.mean)

    @cached_property
    def disagreement(self) -> NDArray[np.float64]:
        """How much the opinions differ, `[N]`, in nats: `uncertainty` less the mean of their own entropies.

        It is the Jensen-Shannon divergence of all opinions, with the weights of `mean`; of one model with one modality
        it is 0.
        """
        joint: NDArray[np.float64] = entropy(self.joint).mean(0)
        if not self.single.shape[1]:
            return (self.uncertainty - joint).clip(0)
        given = self._heard
        alone = np.where(given, entropy(np.nan_to_num(self.single)).mean(0), 0).sum(0) / np.maximum(given.sum(0), 1)
        within = np.where(given.any(0), (joint + alone) / 2, joint)  # of each opinion by itself
        return (self.uncertainty - within).clip(0)

    @property
    def _heard(self) -> NDArray[np.bool_]:
        """Which rows have opinions of a modality alone, `[M, N]`."""
        return np.asarray(~np.isnan(self.single[0, :, :, 0]))


def entropy(probabilities: Probabilities) -> NDArray[np.float64]:
    """The entropy of probabilities `[..., K]`, in nats, `[...]`."""
    p = probabilities.astype(np.float64)
    result: NDArray[np.float64] = -(p * np.log(np.maximum(p, _TINY))).sum(-1)
    return result


def read_opinions(
    networks: Sequence[Network], part: Part, classes: int, rows: NDArray[np.int64] | None = None
) -> Opinions:
    """The opinions of models that see the same modalities, of the rows of a part.

    Args:
        classes: K; 0 for models that do not learn labels.
        rows: which rows, in ascending order; None for all of them.

    Raises:
        DataError: the shard was damaged since it was opened.
    """
    names = networks[0].names
    rows = np.arange(part.rows) if rows is None else rows
    present = np.stack([part.has(name) for name in names], axis=1)[rows]
    found = [_opinions_of(network, part, rows, present, classes) for network in networks]
    return Opinions(
        np.concatenate([opinions.joint for opinions in found]),
        np.concatenate([opinions.single for opinions in found]),
        np.concatenate([opinions.latent for opinions in found], axis=1),
    )


def _opinions_of(
    network: Network, part: Part, rows: NDArray[np.int64], present: NDArray[np.bool_], classes: int
) -> Opinions:
    replicas, names = network.noise.replicas, network.names
    joint = np.zeros((replicas, len(rows), classes), np.float32)
    singles = len(names) if classes and len(names) > 1 else 0
    single = np.full((replicas, singles, len(rows), classes), np.nan, np.float32)
    latents = list[tuple[NDArray[np.int64], NDArray[np.float32]]]()
    with network.computing():
        for pattern, these in patterns(present):
            given = [name for name, there in zip(names, pattern, strict=True) if there]
            for start in range(0, len(these), BATCH):
                some = these[start : start + BATCH]
                batch = network.batch(read_rows(part, given, rows[some]))
                latents.append((some, network.latent_mean(batch).transpose(0, 1).flatten(1).cpu().numpy()))
                if classes:
                    joint[:, some] = _classified(network, batch)
                for m in range(singles):
                    if names[m] in given and len(given) > 1:
                        single[:, m, some] = _classified(network, {names[m]: batch[names[m]]})
    latent = np.empty((len(rows), latents[0][1].shape[1]), np.float32)
    for some, values in latents:
        latent[some] = values
    return Opinions(joint, single, latent)


def _classified(network: Network, given: Batch) -> Probabilities:
    """q(y|x) of each replica, `[R, B, K]`."""
    return network.by_replica(given).cpu().numpy()
