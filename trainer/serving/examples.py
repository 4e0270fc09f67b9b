"""Rows of a shard on pages: examples of its test part to try, and their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.shards.shard import Part, Shard
from trainer.inference.bundle import id_hash
from trainer.inference.generation import choose_examples
from trainer.inference.image_shapes import image_shape
from trainer.inference.loaded_model import LoadedModel
from trainer.inference.subsets import read_rows
from trainer.serving.pictures import Pictures, Pixels, of_values
from trainer.serving.rows import Read


@dataclass(frozen=True)
class ShardRows:
    """The rows of a model's shard, or of another with its modalities.

    Attributes:
        order: the rows of the test part in the order in which they are offered: of each class in turn.
    """

    model: LoadedModel
    shard: Shard
    pictures: Pictures
    order: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        test = self.shard.test
        usable = np.flatnonzero(np.logical_or.reduce([test.has(name) for name in self.names]))
        chosen = usable[choose_examples(test.labels[usable], len(usable))] if len(usable) else usable
        object.__setattr__(self, "order", chosen)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the model's modalities that the shard has."""
        known = {modality.name for modality in self.shard.modalities}
        return tuple(name for name in self.model.card.names if name in known)

    def offered(self, start: int, count: int) -> list[dict[str, Any]]:
        """Some of the test part's rows, in words."""
        test = self.shard.test
        return [
            {
                "row": row,
                "id": str(test.ids[row]),
                "label": self.label(test, row),
                "given": [name for name in self.names if test.has(name)[row]],
            }
            for row in self.order[start : start + count].tolist()
        ]

    def label(self, part: Part, row: int) -> str | None:
        """The class of a row, or None if it is not known."""
        number = int(part.labels[row])
        return self.shard.classes[number] if number >= 0 else None

    def given_in_training(self, part: Part, row: int) -> bool:
        """Whether the model has seen the row's label."""
        place = np.searchsorted(self.model.bundle.labelled, number := id_hash(str(part.ids[row])))
        return bool(place < len(self.model.bundle.labelled) and self.model.bundle.labelled[place] == number)

    def read(self, row: int) -> Read:
        """A row of the test part as the predictor takes it."""
        return self.read_rows(self.shard.test, np.array([row]))

    def read_rows(self, part: Part, rows: NDArray[np.int64]) -> Read:
        """Rows of a part, in ascending order, as the predictor takes them."""
        names = self.model.card.names
        values = read_rows(part, self.names, rows)
        zeros = {m.name: np.zeros((len(rows), m.width), np.float32) for m in self.model.modalities}
        there = [part.has(name)[rows] if name in self.names else np.zeros(len(rows), np.bool_) for name in names]
        present = np.stack(there, axis=1)
        return Read(self.model.rescaled(zeros | values, present, self.shard.scaling), present)

    def images(self, part: Part, rows: Sequence[int], modality: str) -> list[Pixels | None]:
        """The pictures of rows: those that the data were made of, or their values where these are images."""
        if modality not in self.names:
            return [None] * len(rows)
        there = part.has(modality)
        shape = image_shape(self.shard, modality)
        if shape is None:
            stored = self.pictures.stored(modality, [str(part.ids[row]) for row in rows])
            return [pixels if there[row] else None for row, pixels in zip(rows, stored, strict=True)]
        order = np.unique(np.asarray(rows, np.int64))
        values = dict(zip(order.tolist(), read_rows(part, (modality,), order)[modality], strict=True))
        return [of_values(values[row], shape) if there[row] else None for row in rows]
