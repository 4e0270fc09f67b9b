"""Predicts rows with any pattern of missing modalities, pattern by pattern in batches, at the latent variables' means.

A row's answer depends on its own values alone: the same row by itself, or among others, gives the same numbers but for
rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Features
from trainer.evaluation.evaluate import BATCH
from trainer.inference.card import BundleCard
from trainer.inference.network import Batch, Network
from trainer.inference.predictions import NOBODY, Predictions, patterns
from trainer.inference.unlikeness import Reference, percentile_of


@dataclass(frozen=True)
class Predictor:
    """A network with its card.

    Attributes:
        references: what unlikeness compares with, by the number of the card's entry for a subset.
    """

    card: BundleCard
    network: Network
    references: Mapping[int, Reference]

    def __call__(self, x: Mapping[str, Features], present: NDArray[np.bool_]) -> Predictions:
        """Predicts N rows.

        Args:
            x: scaled features `[N, D]` of each modality; those of rows that lack it are not read.
            present: which modalities each row has, `[N, M]`; every row has one at least.

        Raises:
            DataError: a row's values are so large that its probabilities are not numbers.
        """
        rows, names = len(present), self.card.names
        probabilities = np.empty((rows, len(self.card.classes)), np.float32)
        opinions = np.full((rows, len(names)), NOBODY, np.int64)
        surety = np.zeros((rows, len(names)), np.float32)
        unlikeness = np.full(rows, float(NOBODY))
        thresholds = np.zeros(rows)
        with self.network.computing():
            for pattern, these in patterns(present):
                given = tuple(name for name, there in zip(names, pattern, strict=True) if there)
                entry = self.card.subset(given)
                thresholds[these] = self._threshold(entry)
                for some, batch in self.batches(x, given, these):
                    probabilities[some], unlikeness[some] = self._answer(batch, entry)
            for m, name in enumerate(names):
                several = np.flatnonzero(present[:, m] & (present.sum(1) > 1))
                for some, batch in self.batches(x, (name,), several):
                    alone = self.network.probabilities(batch).cpu().numpy()
                    opinions[some, m], surety[some, m] = alone.argmax(-1), alone.max(-1)
        only = present.sum(1) == 1
        which = present[only].argmax(1)
        opinions[only, which], surety[only, which] = probabilities[only].argmax(-1), probabilities[only].max(-1)
        for values in (probabilities.sum(1), surety.sum(1), unlikeness):
            wrong = np.flatnonzero(~np.isfinite(values))
            if wrong.size:
                raise DataError(
                    f"row {wrong[0]}: its values are too large for the model to compute with",
                    "values are expected in the range of the training rows",
                )
        return Predictions(self.card.classes, names, present, probabilities, opinions, surety, unlikeness, thresholds)

    def probabilities(self, x: Mapping[str, Features], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The probabilities `[N, K]` alone, at the cost of one forward pass.

        Raises:
            DataError: as in a call.
        """
        found = self.collect(x, present, lambda batch: self.network.probabilities(batch), len(self.card.classes))
        wrong = np.flatnonzero(~np.isfinite(found.sum(1)))
        if wrong.size:
            raise DataError(f"row {wrong[0]}: its values are too large for the model to compute with")
        return found

    def collect(
        self,
        x: Mapping[str, Features],
        present: NDArray[np.bool_],
        compute: Callable[[Batch], torch.Tensor],
        width: int,
    ) -> NDArray[np.float32]:
        """What a function of a batch `-> [B, width]` gives for each of the rows, `[N, width]`."""
        result = np.empty((len(present), width), np.float32)
        with self.network.computing():
            for pattern, rows in patterns(present):
                given = tuple(name for name, there in zip(self.card.names, pattern, strict=True) if there)
                for some, batch in self.batches(x, given, rows):
                    result[some] = compute(batch).cpu().numpy()
        return result

    def batches(
        self, x: Mapping[str, Features], given: Sequence[str], rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Batches of rows that have the given modalities."""
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            consecutive = len(some) == some[-1] - some[0] + 1
            place = slice(int(some[0]), int(some[-1]) + 1) if consecutive else some  # a slice is not copied
            yield some, self.network.batch({name: x[name][place] for name in given})

    def _answer(self, batch: Batch, entry: int | None) -> tuple[NDArray[np.float32], NDArray[np.float64] | float]:
        if entry is None or entry not in self.references or not self.card.subsets[entry].known:
            return self.network.probabilities(batch).cpu().numpy(), float(NOBODY)
        probabilities, passes = self.network.answers(batch)
        scores = self.references[entry].scores(passes, self.card.names).cpu().numpy().astype(np.float64)
        return probabilities.cpu().numpy(), percentile_of(scores, self.card.subsets[entry].known)

    def _threshold(self, entry: int | None) -> float:
        """The threshold of a subset: 0 if there is none, infinite if it always abstains."""
        abstention = None if entry is None else self.card.subsets[entry].abstention
        if abstention is None:
            return 0.0
        return np.inf if abstention.threshold is None else abstention.threshold
