"""Training beyond memory: the training rows stream from disk through two windows of memory, read ahead in a thread.

A pass over a shard takes its blocks of consecutive rows in a random order, a window of blocks at a time, and each
replica takes the rows of a window in a random order of its own. The flat tensors hold the few rows that stay and two
windows: a step gathers from one as it would from a whole shard in memory, while the other is read. Replicas of one
shard share the windows, so a block is read once for all of them.

The order is a function of (seed, pass, window size): a resumed run needs no state of it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.shards import Features, Modality, Part, Shard
from trainer import data as resident
from trainer.data import Data, Examples, Rows, Stream, choose_labelled, choose_modalities, lay_out
from trainer.noise import seed_for
from trainer.settings import Settings

PIECE_BYTES = 2**20  # read at a time, of the widest modality: one chunk of a shard that mmssl wrote
BLOCKS = 16  # at least so many random places of the shard meet in a window
TEST_ROWS = 1000  # at most, of the test set at a time
SLOTS = 2  # windows in memory: one is learned from, the next is read
Write = Callable[[int, Mapping[str, Features], NDArray[np.int64]], None]


# --- from a limit to a window ----------------------------------------------------------------------------------------


def parse_size(text: object) -> int:
    """Bytes in `2GB`, `1.5GiB`, `500MB` or a whole number.

    Raises:
        UsageError: it is no such size, or none at all.
    """
    try:
        size = 0 if isinstance(text, bool) else int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise UsageError(f"a memory limit of {text!r} is no size", "--memory-limit 2GB, 500MB, 1.5GiB")
    return size


def within(limit: object, stack: Sequence[Settings], shards: Sequence[Shard], together: int) -> list[Settings]:
    """The settings with the window that a memory limit leaves room for; None where the whole shard fits.

    Args:
        limit: as `parse_size` reads it.
        shards: one a replica.
        together: how many replicas are trained in one pass; their shards share the limit.

    Raises:
        UsageError: the limit is no size, or too small for the labelled rows and two batches a window.
    """
    jobs: dict[str, list[tuple[Settings, Shard]]] = {}
    for settings, shard in zip(stack, shards, strict=True):
        jobs.setdefault(shard.digest, []).append((settings, shard))
    share = parse_size(limit) // min(len(jobs), together)
    windows = {digest: _window(share, limit, own) for digest, own in jobs.items()}
    smallest = min((window for window in windows.values() if window), default=None)  # equal ones can be stacked
    return [
        settings.model_copy(update={"window": windows[shard.digest] and smallest})
        for settings, shard in zip(stack, shards, strict=True)
    ]


def _window(share: int, limit: object, jobs: Sequence[tuple[Settings, Shard]]) -> int | None:
    settings, shard = jobs[0]
    row = _row_bytes(choose_modalities(shard, settings.modalities))
    if (shard.train.rows + shard.test.rows) * row <= share:
        return None
    labelled = [choose_labelled(*job) for job in jobs]
    streams_labelled = settings.learns_labels and len(labelled[0]) == shard.train.rows
    resident_rows = 0 if streams_labelled else len(np.unique(np.concatenate(labelled)))
    # Two windows, a quarter of one for the test set, an eighth for what is on its way: 2.4 windows, and some air.
    window = 2 * (share // row - resident_rows) // 5
    if window < 2 * settings.batch_size:
        least = (resident_rows + 5 * settings.batch_size) * row * (parse_size(limit) // share) + row
        raise UsageError(
            f"a memory limit of {limit} is too small for {shard.path}: its {resident_rows} labelled rows, and windows "
            f"of two batches of {settings.batch_size}, take {least / 1e6:.2f} MB",
            f"--memory-limit {-(-least // 1000)}kB, or more",
        )
    return window


def _row_bytes(modalities: Iterable[Modality]) -> int:
    return 8 + 4 * sum(m.width for m in modalities)  # the label, too


# --- the order -------------------------------------------------------------------------------------------------------


class Layout:
    """Which blocks make up which window; the same for all replicas of a shard.

    Args:
        window: most rows in a window.
        widest: values a row of the widest modality.
        rows: those that are streamed, ascending; a block without any is left out.

    Attributes:
        block: rows in a block.
        size: rows of memory that a window takes.
        per_pass: windows in a pass.
    """

    def __init__(self, window: int, widest: int, rows: Rows) -> None:
        self.block = max(1, min(PIECE_BYTES // (4 * widest), window // BLOCKS))
        self.blocks = np.unique(rows // self.block)
        span = max(1, window // self.block)
        self.size = span * self.block
        self.per_pass = -(-len(self.blocks) // span)
        self._pass = lru_cache(maxsize=2)(
            lambda count: np.array_split(
                np.random.default_rng(seed_for(0, "blocks", count)).permutation(self.blocks), self.per_pass
            )
        )

    def window(self, number: int) -> Rows:
        """The blocks of window `number`, counted over all passes, ascending: as they are read and lie in memory."""
        count, own = divmod(number, self.per_pass)
        return np.sort(self._pass(count)[own])

    def smallest(self, per_block: Rows) -> int:
        """The fewest rows that any window can have, from the rows in each block."""
        return int(np.sort(per_block[self.blocks])[: len(self.blocks) // self.per_pass].sum())


class WindowedStream(Stream):
    """An endless sequence of batches over some rows: none skipped, none twice in a pass, window after window.

    A batch is where its rows lie in the flat tensors, where the windows take turns from `base` on.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, name: str, layout: Layout, base: int) -> None:
        super().__init__(rows, batch_size, seed, name)
        self.layout = layout
        own = np.zeros((int(layout.blocks[-1]) + 1) * layout.block, np.bool_)
        own[rows] = True
        own_blocks = own.reshape(-1, layout.block)
        self.per_block = own_blocks.sum(1)

        def places(number: int) -> Rows:
            found = np.flatnonzero(own_blocks[layout.window(number)])
            order = np.random.default_rng(seed_for(seed, name, number)).permutation(found)
            return base + number % SLOTS * layout.size + order

        def ends(count: int) -> Rows:
            windows = range(count * layout.per_pass, (count + 1) * layout.per_pass)
            return np.cumsum([self.per_block[layout.window(number)].sum() for number in windows])

        self._places, self._ends = lru_cache(maxsize=SLOTS)(places), lru_cache(maxsize=2)(ends)

    def windows(self, step: int) -> tuple[int, int]:
        """The first and the last window that batch number `step` takes rows from."""
        start = step * self.batch_size
        return self._at(start)[0], self._at(start + self.batch_size - 1)[0]

    def batch(self, step: int) -> Rows:
        """Places of batch number `step`, `[B]`."""
        start, parts, missing = step * self.batch_size, [], self.batch_size
        while missing:
            number, offset = self._at(start)
            part = self._places(number)[offset : offset + missing]
            parts.append(part)
            start += len(part)
            missing -= len(part)
        return np.concatenate(parts)

    def _at(self, position: int) -> tuple[int, int]:
        """The window of a position of the endless sequence, and how far into it that is."""
        count, rest = divmod(position, len(self.rows))
        ends = self._ends(count)
        own = int(np.searchsorted(ends, rest, side="right"))
        return count * self.layout.per_pass + own, rest - (int(ends[own - 1]) if own else 0)


# --- reading ---------------------------------------------------------------------------------------------------------


class Reader:
    """Reads a shard's windows one after the other in a thread, and waits while both slots are in use.

    What goes wrong in the thread is raised where the window is asked for.
    """

    def __init__(self, part: Part, names: Sequence[str], layout: Layout, write: Write, device: torch.device) -> None:
        self.part, self.names, self.layout, self.write = part, names, layout, write
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._first = self._end = 0  # windows from `first` up to `end` are in memory or in use
        self._closed = False
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._read: torch.cuda.Event | None = None
        self._free: torch.cuda.Event | None = None

    def need(self, first: int, last: int) -> None:
        """Waits until windows `first` to `last` are in memory; earlier ones are given up.

        Raises:
            DataError: the file was damaged since it was opened.
        """
        if self._thread is None or not self._first <= first <= self._end:
            self.close()
            self._start(first)
        with self._changed:
            if first > self._first:
                self._give_up()
            self._first = first
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error is not None or self._end > last)
            if self._error is not None:
                raise self._error
            if self._read is not None:
                self._read.wait()  # the device's own stream waits, not this thread

    def close(self) -> None:
        """Ends the thread, after the piece it reads now."""
        if self._thread is None:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None

    def _give_up(self) -> None:
        """On CUDA: what is read from now on waits until the device has done all it was given so far."""
        if self._copies is not None:
            self._free = torch.cuda.current_stream().record_event()

    def _start(self, first: int) -> None:
        self._give_up()
        self._first = self._end = first
        self._closed, self._error = False, None
        self._thread = threading.Thread(target=self._run, name="mmssl reader", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._end < self._first + SLOTS)
                    if self._closed:
                        return
                    number, free = self._end, self._free
                with torch.cuda.stream(self._copies):  # None changes nothing
                    if self._copies is not None and free is not None:
                        free.wait(self._copies)
                    if not self._load(number):
                        return
                    if self._copies is not None:
                        self._read = self._copies.record_event()
                with self._changed:
                    self._end = number + 1
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _load(self, number: int) -> bool:
        """Whether the window was read to its end before the reader was closed."""
        blocks, rows, start = self.layout.window(number), self.layout.block, number % SLOTS * self.layout.size
        slices = [slice(block * rows, min((block + 1) * rows, self.part.rows)) for block in map(int, blocks)]
        for order, piece in enumerate(self.part.pieces(self.names, slices)):
            if self._closed:
                return False
            self.write(start + order * rows, piece, self.part.labels[slices[order]])
        return not self._closed


@dataclass(frozen=True)
class Feed:
    """One shard's place in the flat tensors.

    Attributes:
        base: where its first window begins.
        test: where the rows of a batch of the test set lie; `test_rows` is how many fit.
        offset: the shard's first row in the numbering of `lay_out`.
    """

    shard: Shard
    layout: Layout
    base: int
    test: int
    test_rows: int
    offset: int
    reader: Reader


@dataclass(frozen=True)
class Streamed(Data):
    """Data of which few rows are in memory: `features` and `label` hold the labelled ones, the windows, a test batch.

    Attributes:
        paced: the examples that are streamed: the unlabelled ones, or the labelled ones where there are no others.
        feeds: one a replica; replicas of one shard have the same.
        write: puts rows into the flat tensors.
    """

    paced: str
    feeds: tuple[Feed, ...]
    write: Write

    def streams(self, name: str, seeds: Sequence[int], batch_size: int) -> Sequence[Stream]:
        if name != self.paced:
            return super().streams(name, seeds, batch_size)
        streams = [
            WindowedStream(getattr(own, name) - feed.offset, batch_size, seed, name, feed.layout, feed.base)
            for own, feed, seed in zip(self.examples, self.feeds, seeds, strict=True)
        ]
        for stream, feed in zip(streams, self.feeds, strict=True):
            # Replicas whose labelled rows differ may be as many rows apart in what is left of the shard.
            beside = [other.rows for other, theirs in zip(streams, self.feeds, strict=True) if theirs is feed]
            equal = all(np.array_equal(rows, stream.rows) for rows in beside)
            drift = 0 if equal else feed.shard.train.rows - len(stream.rows)
            if feed.layout.smallest(stream.per_block) < batch_size + drift:
                raise UsageError(
                    f"{feed.shard.path}: windows of {feed.layout.size} rows are too small for batches of {batch_size}"
                    + f" and {drift} labelled rows that differ by seed" * (drift > 0),
                    "a larger --memory-limit, or a smaller --batch-size" + ", or --stack 1" * (drift > 0),
                )
        return streams

    def first_index(self, streams: Sequence[Stream]) -> Tensor:
        if isinstance(streams[0], WindowedStream):  # zeros, until a window is read
            bases = torch.tensor([feed.base for feed in self.feeds], device=self.label.device)
            return bases[:, None].repeat(1, streams[0].batch_size)
        return super().first_index(streams)

    def place(self, index: Tensor, streams: Sequence[Stream], number: int) -> None:
        needed: dict[int, list[tuple[int, int]]] = {}
        for stream, feed in zip(streams, self.feeds, strict=True):
            if isinstance(stream, WindowedStream):
                needed.setdefault(id(feed.reader), []).append(stream.windows(number))
        for feed in self.feeds:
            if spans := needed.pop(id(feed.reader), None):
                feed.reader.need(min(first for first, _ in spans), max(last for _, last in spans))
        super().place(index, streams, number)

    def test_batches(self, size: int) -> Iterator[tuple[Tensor, list[int]]]:
        size = min(size, *(feed.test_rows for feed in self.feeds))
        longest = max(len(own.test) for own in self.examples)
        for start in range(0, longest, size):
            wide = min(size, longest - start)
            index, read = [], set()
            for own, feed in zip(self.examples, self.feeds, strict=True):
                rows = own.test[start : start + size] - feed.offset - feed.shard.train.rows
                if id(feed) not in read:
                    _copy(feed.shard.test, list(self.features), rows, feed.layout.block, feed.test, self.write)
                    read.add(id(feed))
                index.append(feed.test + np.minimum(np.arange(wide), max(len(rows) - 1, 0)))
            real = [min(max(len(own.test) - start, 0), size) for own in self.examples]
            yield torch.from_numpy(np.stack(index)).to(self.label.device), real

    def test_labels(self) -> list[NDArray[np.int64]]:
        return [
            feed.shard.test.labels[own.test - feed.offset - feed.shard.train.rows]
            for own, feed in zip(self.examples, self.feeds, strict=True)
        ]

    def close(self) -> None:
        for feed in self.feeds:
            feed.reader.close()


def load(stack: Sequence[Settings], shards: Sequence[Shard], device: torch.device) -> Data:
    """The data of a stack of replicas, each with its own shard: in memory, or streamed where the settings say so.

    Raises:
        DataError, UsageError: as `trainer.data.load`; or a window too small for a batch.
    """
    window = stack[0].window
    if window is None:
        return resident.load(stack, shards, device)
    modalities, offsets, examples = lay_out(stack, shards)
    widths = {m.name: m.width for m in modalities}
    paced = "unlabelled" if len(examples[0].unlabelled) else "labelled"
    kept: dict[str, list[Rows]] = {}
    streamed: dict[str, list[Rows]] = {}
    for own, shard in zip(examples, shards, strict=True):
        kept.setdefault(shard.digest, []).append(own.labelled[:0] if paced == "labelled" else own.labelled)
        streamed.setdefault(shard.digest, []).append(getattr(own, paced))
    test_rows = max(1, min(window // 4, TEST_ROWS))
    base, plans = 0, {}
    for digest, shard in {shard.digest: shard for shard in shards}.items():
        offset, labelled = offsets[digest], np.unique(np.concatenate(kept[digest]))
        # What the labels leave is the same for all seeds where the shard decides on them: empty blocks are left out.
        by_shard = isinstance(stack[0].labels, str)
        rows = streamed[digest][0] - offset if by_shard else np.arange(shard.train.rows)
        layout = Layout(window, max(widths.values()), rows)
        plans[digest] = shard, offset, labelled, layout, base
        base += len(labelled) + SLOTS * layout.size + test_rows
    features = {name: torch.zeros(base, width, device=device) for name, width in widths.items()}
    label = torch.zeros(base, dtype=torch.int64, device=device)
    write = _writer(features, label)
    feeds = {}
    for digest, (shard, offset, labelled, layout, start) in plans.items():
        _copy(shard.train, list(widths), labelled - offset, layout.block, start, write)
        first = start + len(labelled)
        reader = Reader(shard.train, list(widths), layout, _shifted(write, first), device)
        feeds[digest] = Feed(shard, layout, first, first + SLOTS * layout.size, test_rows, offset, reader)
    if paced == "unlabelled":
        examples = tuple(
            Examples(
                plans[shard.digest][4] + np.searchsorted(plans[shard.digest][2], own.labelled),
                own.unlabelled,
                own.test,
                own.labelled_ids,
            )
            for own, shard in zip(examples, shards, strict=True)
        )
    own_feeds = tuple(feeds[shard.digest] for shard in shards)
    return Streamed(features, label, modalities, shards[0].classes, examples, paced, own_feeds, write)


def _writer(features: Mapping[str, Tensor], label: Tensor) -> Write:
    """Puts rows into the flat tensors; on CUDA through pinned memory, without waiting for the copy."""
    if label.device.type == "cuda":

        def send(target: Tensor, values: NDArray[np.float32] | NDArray[np.int64]) -> None:
            pinned = torch.empty(values.shape, dtype=target.dtype, pin_memory=True)
            pinned.numpy()[...] = values
            target.copy_(pinned, non_blocking=True)  # PyTorch gives pinned memory out again when the copy is done
    else:

        def send(target: Tensor, values: NDArray[np.float32] | NDArray[np.int64]) -> None:
            target.numpy()[...] = values  # NumPy's copy starts no threads beside the model's

    def write(place: int, piece: Mapping[str, Features], labels: NDArray[np.int64]) -> None:
        for name, values in piece.items():
            send(features[name][place : place + len(values)], values)
        send(label[place : place + len(labels)], labels)

    return write


def _shifted(write: Write, base: int) -> Write:
    return lambda place, piece, labels: write(base + place, piece, labels)


def _copy(part: Part, names: Sequence[str], rows: Rows, block: int, place: int, write: Write) -> None:
    """Reads some rows of a part, ascending, a block at a time, and writes them to `place` and on."""
    blocks = [int(number) for number in np.unique(rows // block)]
    slices = [slice(number * block, min((number + 1) * block, part.rows)) for number in blocks]
    for number, own, piece in zip(blocks, slices, part.pieces(names, slices), strict=True):
        wanted = rows[np.searchsorted(rows, own.start) : np.searchsorted(rows, own.stop)]
        found = {name: values[wanted - number * block] for name, values in piece.items()}
        write(place, found, part.labels[wanted])
        place += len(wanted)
