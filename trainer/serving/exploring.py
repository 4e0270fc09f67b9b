"""What the page shows of one row: the model's answer for every choice of its modalities, and what lies behind it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import MmsslError
from pipeline.shards.shard import Part
from trainer.inference.exporting import unscaled
from trainer.inference.image_shapes import guessed_shape, image_shape
from trainer.inference.loaded_model import LoadedModel
from trainer.inference.predictions import Predictions
from trainer.serving.examples import ShardRows
from trainer.serving.neighbours import Neighbours
from trainer.serving.pictures import Pictures, data_uri, of_values
from trainer.serving.rows import Read, Request, answer_rows, part, renamed

MOST_AT_ONCE = 3  # modalities of which every subset is answered in one reply
NEAREST = 4  # training rows that are shown


@dataclass(frozen=True)
class Explorer:
    """Answers the page.

    Attributes:
        rows: the shard whose rows are at hand, or None.
    """

    model: LoadedModel
    pictures: Pictures
    rows: ShardRows | None
    neighbours: Neighbours | None

    def explore(self, name: str, one: Read, given: tuple[str, ...], label: str | None) -> dict[str, Any]:
        """Everything about a single row.

        Args:
            name: the row's id.
            given: the modalities to use, of those that it has.
            label: its class, if that is known.
        """
        there = tuple(n for n, has in zip(self.model.card.names, one.present[0], strict=True) if has)
        subsets = [given] if len(there) > MOST_AT_ONCE else _subsets(there)
        wanted = list(dict.fromkeys([*subsets, *((n,) for n in there)]))
        present = np.array([[n in subset for n in self.model.card.names] for subset in wanted], np.bool_)
        x = {n: np.repeat(values, len(wanted), axis=0) for n, values in one.x.items()}
        predictions = self.model.predictor(x, present)
        answers = {"+".join(subset): self._answer(name, predictions, k) for k, subset in enumerate(wanted)}
        for subset in subsets:
            answers["+".join(subset)] |= self._behind(one, subset)
        return {"id": name, "label": label, "there": list(there), "answers": answers}

    def prepared(self, request: Request) -> dict[str, str]:
        """The pictures of a request as the networks see them, by modality.

        Raises:
            DataError: one cannot be read.
        """
        try:
            return {name: data_uri(self.pictures.prepared(name, path)) for name, path in request.files.items()}
        except MmsslError as error:
            raise renamed(error, request) from None

    def seen(self, request: Request) -> dict[str, str]:
        """The vectors of a request's first row as images, where they are images."""
        found = {}
        for modality in self.model.modalities:
            rows, shape = request.inputs.get(modality.name), self.shape(modality.name)
            if rows and rows[0] is not None and shape is not None:
                found[modality.name] = data_uri(of_values(np.asarray(rows[0], np.float32), shape))
        return found

    def shape(self, modality: str) -> tuple[int, ...] | None:
        """The shape of a modality whose values are an image."""
        if self.rows is not None and modality in self.rows.names:
            return image_shape(self.rows.shard, modality)
        return guessed_shape(self.model.modalities, modality)

    def _answer(self, name: str, predictions: Predictions, row: int) -> dict[str, Any]:
        one = part(predictions, slice(row, row + 1))
        (shown,) = answer_rows([name], one, probabilities=False)
        threshold = float(one.thresholds[0])
        return {
            "row": shown,
            "probabilities": [round(value, 6) for value in one.probabilities[0].tolist()],
            "threshold": None if np.isinf(threshold) else threshold,
        }

    def _behind(self, one: Read, given: tuple[str, ...]) -> dict[str, Any]:
        """What the model makes of the modalities that are not given: their values as images, or the nearest rows."""
        missing = [name for name in self.model.card.names if name not in given]
        imagined = {}
        for name in missing:
            shape = self.shape(name)
            if shape is not None and len(self.model.card.names) > 1:
                imagined[name] = data_uri(of_values(self._reconstructed(one, given, name), shape))
        return {"imagined": imagined, "nearest": self._nearest(one, given, missing)}

    def _reconstructed(self, one: Read, given: Sequence[str], target: str) -> NDArray[np.float32]:
        network = self.model.predictor.network
        with network.computing():
            made = network.reconstruct(network.batch({name: one.x[name] for name in given}), target)
        values: NDArray[np.float32] = unscaled(made.cpu().numpy(), self.model.bundle.scaling.get(target))[0]
        return values

    def _nearest(self, one: Read, given: tuple[str, ...], missing: Sequence[str]) -> list[dict[str, Any]]:
        if self.neighbours is None or self.rows is None:
            return []
        having = missing[0] if len(missing) == 1 and missing[0] in self.rows.names else None
        train: Part = self.rows.shard.train
        near = self.neighbours.nearest(one, given, NEAREST, having)
        return [
            {
                "row": row,
                "id": str(train.ids[row]),
                "label": self.rows.label(train, row),
                "given_in_training": self.rows.given_in_training(train, row),
                "there": [name for name in self.rows.names if train.has(name)[row]],
            }
            for row in near
        ]


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [subset for size in range(1, len(names) + 1) for subset in itertools.combinations(names, size)]
