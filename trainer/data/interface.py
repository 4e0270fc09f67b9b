"""What the training loop and evaluation require of data, whether it is in memory or streamed from disk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.shards.schema import Modality
from trainer.data.selection import Examples
from trainer.data.streams import Stream


class Data(Protocol):
    """The data of R replicas: flat tensors on the device, and the rows of each replica's examples in them."""

    @property
    def features(self) -> Mapping[str, Tensor]:
        """The features of each modality, `[rows, D]` float32."""
        ...

    @property
    def present(self) -> Mapping[str, Tensor]:
        """Which rows have a modality, bool `[rows]`, for the modalities that some rows lack."""
        ...

    @property
    def label(self) -> Tensor:
        """The labels, `[rows]`; -1 means unknown."""
        ...

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities the model sees."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        ...

    @property
    def examples(self) -> tuple[Examples, ...]:
        """The rows of each replica."""
        ...

    def streams(self, name: str, seeds: Sequence[int], batch_size: int) -> Sequence[Stream]:
        """Each replica's endless batches of its `labelled` or `unlabelled` rows."""
        ...

    def first_index(self, streams: Sequence[Stream]) -> Tensor:
        """Valid rows `[R, B]` to start with, before any batch is known."""
        ...

    def write_indices(self, index: Tensor, streams: Sequence[Stream], number: int) -> None:
        """Writes the rows of batch `number` into `index`, `[R, B]`."""
        ...

    def test_batches(self, size: int) -> Iterator[tuple[Tensor, list[int]]]:
        """Yields rows `[R, B]` of the test sets, and how many of them count for each replica.

        A test set that is shorter than the others is padded with its last row, which does not count.
        """
        ...

    def test_labels(self) -> list[NDArray[np.int64]]:
        """The labels of each replica's test set."""
        ...

    def training_rows(self, places: Tensor) -> Tensor:
        """The numbers, within their shard's training part, of the training rows at these places, any shape."""
        ...

    def training_features(self, replica: int) -> Iterator[Mapping[str, Tensor]]:
        """Yields all training rows of a replica's shard in order, block by block, `[n, D]` of each modality.

        A block of rows of which some lack modalities is `Incomplete`, with bool `[n]` by modality.
        """
        ...

    def x(self, index: Tensor) -> Mapping[str, Tensor]:
        """The features of each modality at rows `[R, B]`, `[R, B, D]`; they know which rows lack which modality."""
        ...

    def y(self, index: Tensor) -> Tensor:
        """The one-hot labels `[R, B, K]` of rows `[R, B]` whose label is known."""
        ...

    def test_rows_with(self, modalities: Sequence[str]) -> list[NDArray[np.bool_]]:
        """Which rows of each replica's test set have any of some modalities."""
        ...

    def close(self) -> None:
        """Stops reading ahead, if the data is streamed."""
        ...
