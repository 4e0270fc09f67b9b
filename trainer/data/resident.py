"""Data that fits into the device's memory: flat tensors shared by all replicas."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Modality, Shard
from trainer.data.machine_memory import free_bytes
from trainer.data.selection import VALUE_BYTES, Examples, index_rows
from trainer.data.streams import Stream, first_index, streams_of, write_indices
from trainer.nn.labels import one_hot
from trainer.nn.presence import Incomplete
from trainer.settings.run_settings import Settings

_BLOCK = 10_000  # rows


@dataclass(frozen=True)
class Resident:
    """The data of R replicas, all of it in the device's memory.

    Attributes:
        features: the features of each modality, `[rows of all shards, D]` float32, on the device.
        present: which rows have a modality, bool `[rows of all shards]`, for the modalities that some rows lack.
        label: the labels, `[rows of all shards]`, on the device; -1 means unknown.
        number: the number of each row within its part of its shard, `[rows of all shards]`, on the device.
        modalities: the modalities the model sees.
        classes: the names of the classes.
        examples: the rows of each replica.
    """

    features: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    label: Tensor
    number: Tensor
    modalities: tuple[Modality, ...]
    classes: tuple[str, ...]
    examples: tuple[Examples, ...]

    def streams(self, name: str, seeds: Sequence[int], batch_size: int) -> Sequence[Stream]:
        """Each replica's endless batches of its `labelled` or `unlabelled` rows."""
        return streams_of(self.examples, name, seeds, batch_size)

    def first_index(self, streams: Sequence[Stream]) -> Tensor:
        """Valid rows `[R, B]` to start with, before any batch is known."""
        return first_index(streams, self.label.device)

    def write_indices(self, index: Tensor, streams: Sequence[Stream], number: int) -> None:
        """Writes the rows of batch `number` into `index`, `[R, B]`."""
        write_indices(index, streams, number)

    def test_batches(self, size: int) -> Iterator[tuple[Tensor, list[int]]]:
        """Yields rows `[R, B]` of the test sets, padded at the end, and how many of them count for each replica."""
        test_sets = [examples.test for examples in self.examples]
        longest = max(len(test) for test in test_sets)
        rows = np.stack([np.pad(test, (0, longest - len(test)), mode="edge") for test in test_sets])
        index = torch.from_numpy(rows).to(self.label.device)
        for start in range(0, longest, size):
            counts = [min(max(len(test) - start, 0), size) for test in test_sets]
            yield index[:, start : start + size], counts

    def test_labels(self) -> list[NDArray[np.int64]]:
        """The labels of each replica's test set."""
        label = self.label.cpu().numpy()
        return [label[examples.test] for examples in self.examples]

    def test_rows_with(self, modalities: Sequence[str]) -> list[NDArray[np.bool_]]:
        """Which rows of each replica's test set have any of some modalities."""
        if any(name not in self.present for name in modalities):
            return [np.ones(len(examples.test), np.bool_) for examples in self.examples]
        any_of_them = torch.stack([self.present[name] for name in modalities]).any(0).cpu().numpy()
        return [any_of_them[examples.test] for examples in self.examples]

    def close(self) -> None:
        """Does nothing: no thread reads ahead."""

    def training_rows(self, places: Tensor) -> Tensor:
        """The numbers, within their shard's training part, of the training rows at these places, any shape."""
        return self.number[places]

    def training_features(self, replica: int) -> Iterator[Mapping[str, Tensor]]:
        """Yields all training rows of a replica's shard, in blocks: what is made of them takes little memory."""
        first, rows = self.examples[replica].first, self.examples[replica].training_rows
        for start in range(first, first + rows, _BLOCK):
            yield gather(self.features, self.present, slice(start, min(start + _BLOCK, first + rows)))

    def x(self, index: Tensor) -> Mapping[str, Tensor]:
        """The features of each modality at rows `[R, B]`, `[R, B, D]`."""
        return gather(self.features, self.present, index)

    def y(self, index: Tensor) -> Tensor:
        """The one-hot labels `[R, B, K]` of rows `[R, B]` whose label is known."""
        return one_hot(self.label[index], len(self.classes))


def gather(
    features: Mapping[str, Tensor], present: Mapping[str, Tensor], index: Tensor | slice
) -> Mapping[str, Tensor]:
    """The features of some rows, which know what they lack."""
    values = {name: column[index] for name, column in features.items()}
    return Incomplete(values, {name: rows[index] for name, rows in present.items()}) if present else values


def lacking(shards: Iterable[Shard], modalities: Sequence[Modality]) -> list[str]:
    """The modalities that some rows of the shards lack."""
    parts = [part for shard in shards for part in (shard.train, shard.test)]
    return [m.name for m in modalities if any(m.name in part.present for part in parts)]


def load(stack: Sequence[Settings], shards: Sequence[Shard], device: torch.device) -> Resident:
    """Loads the data of a stack of replicas, each with its own shard; a shard that several share is loaded once.

    Raises:
        DataError, UsageError: as in `index_rows`; or the features do not fit into the device's memory.
    """
    modalities, offsets, examples = index_rows(stack, shards)
    distinct = {offsets[shard.digest]: shard for shard in shards}
    rows = sum(shard.train.rows + shard.test.rows for shard in distinct.values())
    needed, free = VALUE_BYTES * rows * sum(m.width for m in modalities), free_bytes(device)
    if needed > free:
        raise DataError(
            f"{', '.join(str(shard.path) for shard in distinct.values())}: the features take {needed / 1e9:.1f} GB, "
            f"and {'the GPU' if device.type == 'cuda' else 'this machine'} has {free / 1e9:.1f} GB of memory free",
            f"stream them from disk: --memory-limit {max(1, int(free / 4e6))}MB",  # a quarter of what is free
        )
    features = {m.name: torch.empty(rows, m.width, device=device) for m in modalities}
    label = torch.empty(rows, dtype=torch.int64, device=device)
    number = torch.empty_like(label)
    some = lacking(distinct.values(), modalities)
    present = {name: torch.empty(rows, dtype=torch.bool, device=device) for name in some}
    row = 0
    for shard in distinct.values():
        for part in (shard.train, shard.test):
            label[row : row + part.rows] = torch.tensor(part.labels)
            number[row : row + part.rows] = torch.arange(part.rows)
            for name, there in present.items():
                there[row : row + part.rows] = torch.tensor(part.has(name))
            for name, flat in features.items():
                start = row
                for block in part.blocks(name):
                    flat[start : start + len(block)] = torch.from_numpy(block)
                    start += len(block)
            row += part.rows
    return Resident(features, present, label, number, modalities, shards[0].classes, examples)
