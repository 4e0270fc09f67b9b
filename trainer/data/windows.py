"""Windows of a shard that lies on disk: the order in which its blocks come, and a thread that reads them ahead.

A pass over a shard takes its blocks of consecutive rows in a random order, a window of blocks at a time, and each
replica takes the rows of a window in a random order of its own. The order is a function of (seed, pass, window size):
a resumed run needs no state of it.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.shards.shard import Features, Part
from trainer.data.selection import Rows
from trainer.data.streams import Stream
from trainer.nn.rng import seed_for

PIECE_BYTES = 2**20  # read at a time, of the widest modality: one chunk of a shard that mmssl wrote
BLOCKS = 16  # at least so many random places of the shard meet in a window
SLOTS = 2  # windows in memory: one is learned from, the next is read
Write = Callable[[int, Mapping[str, Features], NDArray[np.int64]], None]


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
