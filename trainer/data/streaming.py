"""Data larger than memory: the training rows are streamed from disk through two windows (`trainer.data.windows`).

The flat tensors hold the few rows that are always needed, and two windows. A step gathers rows from one window, as it
would from a whole shard in memory, while the other is read. Replicas with the same shard share its windows, so a block
is read once for all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Features, Modality, Part, Shard
from trainer.data import resident
from trainer.data.interface import Data
from trainer.data.selection import Examples, Rows, index_rows
from trainer.data.streams import Stream, first_index, streams_of, write_indices
from trainer.data.windows import SLOTS, Layout, Reader, WindowedStream, Write
from trainer.nn.labels import one_hot
from trainer.nn.presence import Incomplete
from trainer.settings.run_settings import Settings

TEST_ROWS = 1000  # the most rows of the test set in memory at a time


@dataclass(frozen=True)
class Feed:
    """One shard, and its places in the flat tensors.

    Attributes:
        base: where its first window begins.
        test: where the rows of a test batch begin.
        test_rows: the maximum number of rows in a test batch.
        offset: the shard's first row in the numbering of `index_rows`.
    """

    shard: Shard
    layout: Layout
    base: int
    test: int
    test_rows: int
    offset: int
    reader: Reader


@dataclass(frozen=True)
class Streamed:
    """Data that is mostly on disk: the flat tensors hold the labelled rows, the windows and a test batch.

    Attributes:
        paced: which examples are streamed: "unlabelled", or "labelled" if there are no unlabelled ones.
        feeds: one per replica; replicas with the same shard have the same feed.
        write: writes rows into the flat tensors.
        number: the number, within its part of its shard, of each row in the flat tensors.
    """

    features: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    label: Tensor
    modalities: tuple[Modality, ...]
    classes: tuple[str, ...]
    examples: tuple[Examples, ...]
    paced: str
    feeds: tuple[Feed, ...]
    write: Write
    number: Tensor

    def streams(self, name: str, seeds: Sequence[int], batch_size: int) -> Sequence[Stream]:
        if name != self.paced:
            return streams_of(self.examples, name, seeds, batch_size)
        streams = [
            WindowedStream(getattr(examples, name) - feed.offset, batch_size, seed, name, feed.layout, feed.base)
            for examples, feed, seed in zip(self.examples, self.feeds, seeds, strict=True)
        ]
        for stream, feed in zip(streams, self.feeds, strict=True):
            # If the labelled rows of two replicas differ, their streams can drift apart by as many rows.
            same_shard = [other.rows for other, its_feed in zip(streams, self.feeds, strict=True) if its_feed is feed]
            equal = all(np.array_equal(rows, stream.rows) for rows in same_shard)
            drift = 0 if equal else feed.shard.train.rows - len(stream.rows)
            if feed.layout.smallest(stream.per_block) < batch_size + drift:
                raise UsageError(
                    f"{feed.shard.path}: windows of {feed.layout.size} rows are too small for batches of {batch_size}"
                    + f" and {drift} labelled rows that differ by seed" * (drift > 0),
                    "use a larger --memory-limit or a smaller --batch-size" + ", or --stack 1" * (drift > 0),
                )
        return streams

    def first_index(self, streams: Sequence[Stream]) -> Tensor:
        if isinstance(streams[0], WindowedStream):  # zeros until a window has been read
            bases = torch.tensor([feed.base for feed in self.feeds], device=self.label.device)
            return bases[:, None].repeat(1, streams[0].batch_size)
        return first_index(streams, self.label.device)

    def write_indices(self, index: Tensor, streams: Sequence[Stream], number: int) -> None:
        needed: dict[int, list[tuple[int, int]]] = {}
        for stream, feed in zip(streams, self.feeds, strict=True):
            if isinstance(stream, WindowedStream):
                needed.setdefault(id(feed.reader), []).append(stream.windows(number))
        for feed in self.feeds:
            if spans := needed.pop(id(feed.reader), None):
                feed.reader.need(min(first for first, _ in spans), max(last for _, last in spans))
        write_indices(index, streams, number)

    def test_batches(self, size: int) -> Iterator[tuple[Tensor, list[int]]]:
        size = min(size, *(feed.test_rows for feed in self.feeds))
        longest = max(len(examples.test) for examples in self.examples)
        for start in range(0, longest, size):
            width = min(size, longest - start)
            index, read = [], set()
            for examples, feed in zip(self.examples, self.feeds, strict=True):
                rows = examples.test[start : start + size] - feed.offset - feed.shard.train.rows
                if id(feed) not in read:
                    _copy(feed.shard.test, list(self.features), rows, feed.layout.block, feed.test, self.write)
                    read.add(id(feed))
                index.append(feed.test + np.minimum(np.arange(width), max(len(rows) - 1, 0)))
            counts = [min(max(len(examples.test) - start, 0), size) for examples in self.examples]
            yield torch.from_numpy(np.stack(index)).to(self.label.device), counts

    def test_labels(self) -> list[NDArray[np.int64]]:
        return [
            feed.shard.test.labels[examples.test - feed.offset - feed.shard.train.rows]
            for examples, feed in zip(self.examples, self.feeds, strict=True)
        ]

    def test_rows_with(self, modalities: Sequence[str]) -> list[NDArray[np.bool_]]:
        return [
            np.logical_or.reduce([feed.shard.test.has(name) for name in modalities])[
                examples.test - feed.offset - feed.shard.train.rows
            ]
            for examples, feed in zip(self.examples, self.feeds, strict=True)
        ]

    def training_rows(self, places: Tensor) -> Tensor:
        return self.number[places]

    def training_features(self, replica: int) -> Iterator[Mapping[str, Tensor]]:
        feed = self.feeds[replica]
        rows = feed.shard.train.rows
        slices = [slice(first, min(first + feed.layout.block, rows)) for first in range(0, rows, feed.layout.block)]
        for span, piece in zip(slices, feed.shard.train.pieces(list(self.features), slices), strict=True):
            values = {name: torch.from_numpy(block).to(self.label.device) for name, block in piece.items()}
            there = {
                name: torch.tensor(feed.shard.train.has(name)[span]).to(self.label.device) for name in self.present
            }
            yield Incomplete(values, there) if there else values

    def x(self, index: Tensor) -> Mapping[str, Tensor]:
        """The features of each modality at rows `[R, B]`, `[R, B, D]`."""
        return resident.gather(self.features, self.present, index)

    def y(self, index: Tensor) -> Tensor:
        """The one-hot labels `[R, B, K]` of rows `[R, B]` whose label is known."""
        return one_hot(self.label[index], len(self.classes))

    def close(self) -> None:
        for feed in self.feeds:
            feed.reader.close()


def load(stack: Sequence[Settings], shards: Sequence[Shard], device: torch.device) -> Data:
    """The data of a stack of replicas, each with its own shard: streamed if the settings have a window, or in memory.

    Raises:
        DataError, UsageError: as in `trainer.data.resident.load`; or a window is too small for a batch.
    """
    window = stack[0].window
    if window is None:
        return resident.load(stack, shards, device)
    modalities, offsets, examples = index_rows(stack, shards)
    widths = {m.name: m.width for m in modalities}
    paced = "unlabelled" if len(examples[0].unlabelled) else "labelled"
    kept: dict[str, list[Rows]] = {}
    streamed: dict[str, list[Rows]] = {}
    for replica, shard in zip(examples, shards, strict=True):
        kept.setdefault(shard.digest, []).append(replica.labelled[:0] if paced == "labelled" else replica.labelled)
        streamed.setdefault(shard.digest, []).append(getattr(replica, paced))
    test_rows = max(1, min(window // 4, TEST_ROWS))
    base, plans = 0, {}
    for digest, shard in {shard.digest: shard for shard in shards}.items():
        offset, labelled = offsets[digest], np.unique(np.concatenate(kept[digest]))
        # If the shard decides which rows are labelled, all seeds stream the same rows, and empty blocks can be skipped.
        by_shard = isinstance(stack[0].labels, str)
        rows = streamed[digest][0] - offset if by_shard else np.arange(shard.train.rows)
        layout = Layout(window, max(widths.values()), rows)
        plans[digest] = shard, offset, labelled, layout, base
        base += len(labelled) + SLOTS * layout.size + test_rows
    features = {name: torch.zeros(base, width, device=device) for name, width in widths.items()}
    label = torch.zeros(base, dtype=torch.int64, device=device)
    number = torch.zeros_like(label)
    some = resident.lacking([plan[0] for plan in plans.values()], modalities)
    present = {name: torch.ones(base, dtype=torch.bool, device=device) for name in some}
    write = _writer(features, present, label, number)
    feeds = {}
    for digest, (shard, offset, labelled, layout, start) in plans.items():
        _copy(shard.train, list(widths), labelled - offset, layout.block, start, write)
        first = start + len(labelled)
        reader = Reader(shard.train, list(widths), layout, _shifted(write, first), device)
        feeds[digest] = Feed(shard, layout, first, first + SLOTS * layout.size, test_rows, offset, reader)
    if paced == "unlabelled":
        examples = tuple(
            replace(
                replica, labelled=plans[shard.digest][4] + np.searchsorted(plans[shard.digest][2], replica.labelled)
            )
            for replica, shard in zip(examples, shards, strict=True)
        )
    by_replica = tuple(feeds[shard.digest] for shard in shards)
    return Streamed(features, present, label, modalities, shards[0].classes, examples, paced, by_replica, write, number)


def _writer(features: Mapping[str, Tensor], present: Mapping[str, Tensor], label: Tensor, number: Tensor) -> Write:
    """A function that writes rows into the flat tensors; on CUDA via pinned memory, without waiting for the copy."""
    if label.device.type == "cuda":

        def send(target: Tensor, values: NDArray[Any]) -> None:
            pinned = torch.empty(values.shape, dtype=target.dtype, pin_memory=True)
            pinned.numpy()[...] = values
            target.copy_(pinned, non_blocking=True)  # PyTorch reuses pinned memory only after the copy
    else:

        def send(target: Tensor, values: NDArray[Any]) -> None:
            target.numpy()[...] = values  # NumPy's copy starts no threads next to the model's

    def write(place: int, piece: Mapping[str, Features], part: Part, rows: Rows) -> None:
        for name, values in piece.items():
            send(features[name][place : place + len(values)], values)
        span = slice(place, place + len(rows))
        for name, there in present.items():
            send(there[span], part.has(name)[rows])
        send(label[span], part.labels[rows])
        send(number[span], rows)

    return write


def _shifted(write: Write, base: int) -> Write:
    """The same function with its places counted from `base`."""
    return lambda place, piece, part, rows: write(base + place, piece, part, rows)


def _copy(part: Part, names: Sequence[str], rows: Rows, block: int, place: int, write: Write) -> None:
    """Reads rows of a part, ascending, block by block, and writes them one after the other, starting at `place`."""
    blocks = [int(number) for number in np.unique(rows // block)]
    slices = [slice(number * block, min((number + 1) * block, part.rows)) for number in blocks]
    for number, span, piece in zip(blocks, slices, part.pieces(names, slices), strict=True):
        wanted = rows[np.searchsorted(rows, span.start) : np.searchsorted(rows, span.stop)]
        features = {name: values[wanted - number * block] for name, values in piece.items()}
        write(place, features, part, wanted)
        place += len(wanted)
