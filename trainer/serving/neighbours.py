"""The training rows that are nearest to a row in the latent space, given the same modalities."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.inference.loaded_model import LoadedModel
from trainer.inference.unlikeness import distances_to
from trainer.serving.examples import ShardRows
from trainer.serving.rows import Read

MOST_ROWS = 5000  # training rows that are compared with


@dataclass
class Neighbours:
    """Finds the nearest training rows; their latents are computed when they are first needed."""

    model: LoadedModel
    rows: ShardRows
    _latents: dict[tuple[str, ...], tuple[NDArray[np.int64], torch.Tensor]] = field(default_factory=dict)

    def nearest(self, one: Read, given: tuple[str, ...], count: int, having: str | None) -> list[int]:
        """The rows of the training part, the nearest first.

        Args:
            one: a single row.
            given: the modalities that the row is seen with.
            having: a modality that they must have.
        """
        candidates, latents = self._reference(given)
        if not len(candidates):
            return []
        network = self.model.predictor.network
        with network.computing():
            latent = network.latent_mean(network.batch({name: one.x[name] for name in given}))
            distance = distances_to(latent, latents)[0].cpu().numpy()
        if having is not None:
            distance = np.where(self.rows.shard.train.has(having)[candidates], distance, np.inf)
        order = np.argsort(distance, kind="stable")[:count]
        near: list[int] = candidates[order[np.isfinite(distance[order])]].tolist()
        return near

    def _reference(self, given: tuple[str, ...]) -> tuple[NDArray[np.int64], torch.Tensor]:
        if given not in self._latents:
            train, network = self.rows.shard.train, self.model.predictor.network
            usable = [train.has(name) if name in self.rows.names else np.zeros(train.rows, np.bool_) for name in given]
            candidates = np.flatnonzero(np.logical_and.reduce(usable))
            if len(candidates) > MOST_ROWS:
                candidates = np.sort(np.random.default_rng(0).choice(candidates, MOST_ROWS, replace=False))
            parts = []
            with network.computing():
                for start in range(0, len(candidates), 500):
                    some = self.rows.read_rows(train, candidates[start : start + 500])
                    parts.append(network.latent_mean(network.batch({name: some.x[name] for name in given})))
            latents = torch.cat(parts, dim=1) if parts else torch.empty(0)
            self._latents[given] = candidates, latents
        return self._latents[given]
