"""Compares what was written of a bundle for other programs with what `mmssl predict` says of the same rows."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Features, Modality
from trainer.inference.bundle import Bundle, scaled
from trainer.inference.exporting import unscaled
from trainer.inference.predictor import Predictor

MOST_DIFFERENT = 1e-4  # in a probability
ALL_COMPARED = 9  # modalities: up to 511 subsets; of more, some of each size are compared
SUBSETS_PER_SIZE = 20
RANDOM_ROWS = 8  # beside those of the bundle's check
BATCHES = (1, 2, 7)  # rows that are given together, beside all of them and none
_SINGLE = 16  # rows that are also given one at a time
_UNREAD = np.float32(1e9)  # what a row holds of a modality that it lacks: it must not be read

Answer = Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]  # values of each modality, what is present -> [N, K]


class Comparison:
    """Rows with every subset of the modalities, and their probabilities as `mmssl predict` gives them.

    The values are those of the bundle's check, and random ones of each modality's distribution. Half of the rows lack a
    modality because nothing says that it is present, and half because it is NaN.
    """

    def __init__(self, bundle: Bundle, predictor: Predictor) -> None:
        self._bundle, self._predictor = bundle, predictor
        values = _values(bundle)
        subsets = _subsets(len(values))
        rows = len(values[0])
        has = np.repeat(subsets, rows, axis=0)
        self._wanted = self._usual([np.tile(column, (len(subsets), 1)) for column in values], has)
        by_flag = np.arange(len(has)) % 2 == 0
        self._inputs: list[NDArray[Any]] = []
        for m, column in enumerate(values):
            given = np.tile(column, (len(subsets), 1))
            given[~has[:, m]] = np.where(by_flag, _UNREAD, np.float32(np.nan))[~has[:, m], None]
            self._inputs.append(given)
        self._inputs.append(has | ~by_flag[:, None])

    @property
    def rows(self) -> int:
        """How many rows there are, over all subsets."""
        return len(self._wanted)

    @property
    def examples(self) -> list[Tensor]:
        """A few of the rows, to export the network with."""
        return [torch.from_numpy(column[:3]) for column in self._inputs]

    def greatest_difference(self, file: str, answer: Answer) -> float:
        """How far the probabilities of a file are from the usual ones, in batches of several sizes.

        Raises:
            DataError: too far, or a batch has another shape.
        """
        worst = 0.0
        for size in (*BATCHES, self.rows):
            rows = min(self.rows, size * _SINGLE)
            for start in range(0, rows, size):
                some = slice(start, min(start + size, rows))
                worst = max(worst, self._difference(file, answer([column[some] for column in self._inputs]), some))
        none = answer([column[:0] for column in self._inputs])
        if none.shape != (0, self._wanted.shape[1]):
            raise DataError(f"{file} gives {none.shape} for no rows", _HINT)
        return worst

    def difference_by_encoder(
        self, file: str, modality: str, usual: Features, written: Features, last: Answer
    ) -> float:
        """How far the probabilities of pictures of one modality are from the usual ones, all the way.

        Args:
            usual, written: their features, by the encoder and by the file.
            last: what makes probabilities of features.

        Raises:
            DataError: too far.
        """
        place = self._predictor.card.names.index(modality)
        has = np.zeros((len(usual), len(self._predictor.card.names)), np.bool_)
        has[:, place] = True

        def with_features(features: Features) -> list[NDArray[Any]]:
            return [
                features if m == place else np.zeros((len(features), column.shape[1]), np.float32)
                for m, column in enumerate(self._inputs[:-1])
            ]

        wanted = self._usual(with_features(usual), has)
        return _checked(file, last([*with_features(written), has]), wanted)

    def _difference(self, file: str, found: NDArray[np.float32], some: slice) -> float:
        return _checked(file, found, self._wanted[some])

    def _usual(self, raw: Sequence[Features], has: NDArray[np.bool_]) -> NDArray[np.float32]:
        names, scaling = self._predictor.card.names, self._bundle.scaling
        x = {name: scaled(raw[m], scaling.get(name), has[:, m]) for m, name in enumerate(names)}
        return self._predictor.probabilities(x, has)


_HINT = "this is a fault of mmssl or of one of these packages: the bundle can be exported without it"


def _checked(file: str, found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    if found.shape != wanted.shape:
        raise DataError(f"{file} gives {found.shape} where {wanted.shape} is expected", _HINT)
    difference = float(np.abs(found - wanted).max(initial=0))
    if not difference <= MOST_DIFFERENT:  # NaN too
        raise DataError(
            f"{file} would give other probabilities than mmssl predict: they differ by {difference:.2g}, and "
            f"{MOST_DIFFERENT:g} is allowed", _HINT,
        )  # fmt: skip
    return difference


def _values(bundle: Bundle) -> list[Features]:
    """Values of every modality for some rows, `[n, D]`, not scaled."""
    rng, check, columns = np.random.default_rng(0), bundle.check, []
    for m, card in enumerate(bundle.card.modalities):
        scaling = bundle.scaling.get(card.name)
        known = check.x[card.name][check.present[:, m]]
        if len(known):  # each of the check's rows has some modalities: the others' values are those of other rows
            known = known[np.arange(len(check.present)) % len(known)]
        else:
            known = unscaled(_random(rng, card.modality, len(check.present)), scaling)
        columns.append(np.concatenate([known, unscaled(_random(rng, card.modality, RANDOM_ROWS), scaling)]))
    return columns


def _random(rng: np.random.Generator, modality: Modality, rows: int) -> Features:
    shape = (rows, modality.width)
    if modality.distribution == "bernoulli":
        return rng.random(shape, np.float32)
    values = rng.standard_normal(shape, np.float32)
    return np.abs(values) if modality.distribution == "nonnegative" else values


def _subsets(modalities: int) -> NDArray[np.bool_]:
    """Which modalities each subset has, `[S, M]`: all subsets but the empty one, or with many modalities some."""
    rng, rows = np.random.default_rng(0), list[NDArray[np.bool_]]()
    for size in range(1, modalities + 1):
        if modalities <= ALL_COMPARED:
            chosen = [list(subset) for subset in itertools.combinations(range(modalities), size)]
        else:
            chosen = [list(rng.permutation(modalities)[:size]) for _ in range(SUBSETS_PER_SIZE)]
        for subset in chosen:
            row = np.zeros(modalities, np.bool_)
            row[subset] = True
            rows.append(row)
    return np.stack(rows)
