"""What the training loop and evaluation ask of data, whether it lies in memory or is streamed from disk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.shards.schema import Modality
from trainer.data.selection import Examples
from trainer.data.streams import Stream


class Data(Protocol):
    """The data of R replicas: flat tensors on the device, and where each replica's examples lie in them."""

    @property
    def features(self) -> Mapping[str, Tensor]:
        """By modality, `[rows, D]` float32."""
        ...

    @property
    def label(self) -> Tensor:
        """`[rows]`, -1 where unknown."""
        ...

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those the model sees."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        ...

    @property
    def examples(self) -> tuple[Examples, ...]:
        """Each replica's rows."""
        ...

    def streams(self, name: str, seeds: Sequence[int], batch_size: int) -> Sequence[Stream]:
        """Each replica's endless batches of its `labelled` or `unlabelled` rows."""
        ...

    def first_index(self, streams: Sequence[Stream]) -> Tensor:
        """`[R, B]` rows, to have some before any batch is known."""
        ...

    def write_indices(self, index: Tensor, streams: Sequence[Stream], number: int) -> None:
        """Writes where the examples of batch `number` are into `index`, `[R, B]`."""
        ...

    def test_batches(self, size: int) -> Iterator[tuple[Tensor, list[int]]]:
        """Rows `[R, B]` of the test sets, where a shorter set repeats its last row; how many are each replica's own."""
        ...

    def test_labels(self) -> list[NDArray[np.int64]]:
        """Each replica's labels of its test set."""
        ...

    def x(self, index: Tensor) -> dict[str, Tensor]:
        """`[R, B]` rows -> each modality's `[R, B, D]`."""
        ...

    def y(self, index: Tensor) -> Tensor:
        """`[R, B]` rows whose label is known -> one-hot `[R, B, K]`."""
        ...

    def close(self) -> None:
        """Ends what reads ahead, if anything does."""
        ...
