"""Windows of a shard on disk: the order of its blocks, and a thread that reads them ahead.

A pass over a shard takes its blocks of consecutive rows in random order, one window of blocks at a time, and each
replica takes the rows of a window in a random order of its own. The order depends on (seed, pass, window size) alone,
so a resumed run needs no saved state.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from pipeline.shards.shard import Features, Part
from trainer.data.selection import VALUE_BYTES, Rows
from trainer.data.streams import Stream
from trainer.nn.rng import seed_for

PIECE_BYTES = 2**20  # of the widest modality, read at a time: one chunk of a shard that mmssl wrote
BLOCKS = 16  # a window mixes rows from at least this many random places of the shard, unless blocks are single rows
SLOTS = 2  # windows in memory: training uses one while the next is read
Write = Callable[[int, Mapping[str, Features], Part, Rows], None]  # place, features, part, and which rows of it


class Layout:
    """Which blocks make up which window; the same for all replicas of a shard.

    Args:
        window: the maximum number of rows in a window.
        widest: the width of the widest modality.
        rows: the streamed rows, ascending; blocks without any of them are skipped.

    Attributes:
        block: the number of rows in a block.
        size: the number of rows that a window occupies in memory.
        per_pass: the number of windows in a pass.
    """

    def __init__(self, window: int, widest: int, rows: Rows) -> None:
        self.block = max(1, min(PIECE_BYTES // (VALUE_BYTES * widest), window // BLOCKS))
        self.blocks = np.unique(rows // self.block)
        span = max(1, window // self.block)
        self.size = span * self.block
        self.per_pass = -(-len(self.blocks) // span)
        self._pass = lru_cache(maxsize=2)(
            lambda pass_number: np.array_split(
                np.random.default_rng(seed_for(0, "blocks", pass_number)).permutation(self.blocks), self.per_pass
            )
        )

    def window(self, number: int) -> Rows:
        """The blocks of window `number`, which counts across passes; ascending, as they are read and kept in memory."""
        pass_number, index = divmod(number, self.per_pass)
        return np.sort(self._pass(pass_number)[index])

    def smallest(self, per_block: Rows) -> int:
        """The smallest number of rows that any window can have, given the number of rows in each block."""
        return int(np.sort(per_block[self.blocks])[: len(self.blocks) // self.per_pass].sum())


class WindowedStream(Stream):
    """An endless sequence of batches over some rows, window by window; a pass contains each row exactly once.

    A batch holds the places of its rows in the flat tensors, where the windows alternate between slots, the first of
    which starts at `base`.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, name: str, layout: Layout, base: int) -> None:
        super().__init__(rows, batch_size, seed, name)
        self.layout = layout
        streamed = np.zeros((int(layout.blocks[-1]) + 1) * layout.block, np.bool_)
        streamed[rows] = True
        streamed_by_block = streamed.reshape(-1, layout.block)
        self.per_block = streamed_by_block.sum(1)

        def places(number: int) -> Rows:
            """The places of a window's rows in the flat tensors, in random order."""
            within_window = np.flatnonzero(streamed_by_block[layout.window(number)])
            order = np.random.default_rng(seed_for(seed, name, number)).permutation(within_window)
            return base + number % SLOTS * layout.size + order

        def ends(pass_number: int) -> Rows:
            """How many rows of a pass come up to the end of each of its windows."""
            windows = range(pass_number * layout.per_pass, (pass_number + 1) * layout.per_pass)
            return np.cumsum([self.per_block[layout.window(number)].sum() for number in windows])

        self._places, self._ends = lru_cache(maxsize=SLOTS)(places), lru_cache(maxsize=2)(ends)

    def windows(self, step: int) -> tuple[int, int]:
        """The first and the last window that batch number `step` contains rows of."""
        start = step * self.batch_size
        return self._at(start)[0], self._at(start + self.batch_size - 1)[0]

    def batch(self, step: int) -> Rows:
        """The places of the rows of batch number `step`, `[B]`."""
        start, parts, missing = step * self.batch_size, [], self.batch_size
        while missing:
            number, offset = self._at(start)
            part = self._places(number)[offset : offset + missing]
            parts.append(part)
            start += len(part)
            missing -= len(part)
        return np.concatenate(parts)

    def _at(self, position: int) -> tuple[int, int]:
        """The window that holds a position of the endless sequence, and the offset of the position in it."""
        pass_number, rest = divmod(position, len(self.rows))
        ends = self._ends(pass_number)
        index = int(np.searchsorted(ends, rest, side="right"))
        return pass_number * self.layout.per_pass + index, rest - (int(ends[index - 1]) if index else 0)


class Reader:
    """Reads a shard's windows in order in a thread, which waits while both slots are in use.

    An error in the thread is raised by the call of `need` for that window.
    """

    def __init__(self, part: Part, names: Sequence[str], layout: Layout, write: Write, device: torch.device) -> None:
        self.part, self.names, self.layout, self.write = part, names, layout, write
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._first = self._end = 0  # windows from `_first` up to but not including `_end` are in memory
        self._closed = False
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._read: torch.cuda.Event | None = None
        self._free: torch.cuda.Event | None = None

    def need(self, first: int, last: int) -> None:
        """Waits until windows `first` to `last` are in memory, and releases earlier ones.

        Raises:
            DataError: the file was damaged after it was opened.
        """
        if self._thread is None or not self._first <= first <= self._end:
            self.close()
            self._start(first)
        with self._changed:
            if first > self._first:
                self._release()
            self._first = first
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error is not None or self._end > last)
            if self._error is not None:
                raise self._error
            if self._read is not None:
                self._read.wait()  # the device's current stream waits, not this thread

    def close(self) -> None:
        """Stops the thread once it has read its current piece."""
        if self._thread is None:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None

    def _release(self) -> None:
        """On CUDA, makes later reads wait until the device has finished all work submitted so far."""
        if self._copies is not None:
            self._free = torch.cuda.current_stream().record_event()

    def _start(self, first: int) -> None:
        self._release()
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
                with torch.cuda.stream(self._copies):  # with None the stream does not change
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
        """Reads a window; returns whether it was read completely before the reader was closed."""
        blocks, rows, start = self.layout.window(number), self.layout.block, number % SLOTS * self.layout.size
        slices = [slice(block * rows, min((block + 1) * rows, self.part.rows)) for block in map(int, blocks)]
        for order, piece in enumerate(self.part.pieces(self.names, slices)):
            if self._closed:
                return False
            span = slices[order]
            self.write(start + order * rows, piece, self.part, np.arange(span.start, span.stop))
        return not self._closed
