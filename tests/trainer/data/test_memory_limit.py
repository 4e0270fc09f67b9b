"""A memory limit: as a size, as a window, and kept."""

import os
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.runtime.errors import DataError, UsageError
from tests.support.streamed_data import numbered, streamed, streaming_settings
from tests.support.training import (
    CPU,
)
from trainer.data import machine_memory, resident
from trainer.data.memory_limit import choose_windows, parse_size
from trainer.data.windows import SLOTS, WindowedStream


def test_a_shard_ten_times_the_limit_is_streamed_within_it(tmp_path: Path) -> None:
    """Counted where it is allocated: NumPy's arrays through tracemalloc, the flat tensors by their size."""
    shard = numbered(tmp_path / "shard.h5", rows=20_000, width=125)  # 512 bytes and a label a row: 10 MB
    limit = 1_000_000
    (settings,) = choose_windows(limit, [streaming_settings(shard, window=None, batch_size=50)], [shard], 1)
    assert settings.window
    tracemalloc.start()
    try:
        data = streamed([settings], shard)
        tensors = sum(t.numel() * t.element_size() for t in (*data.features.values(), data.label))
        rows = tracemalloc.get_traced_memory()[0]  # row numbers, which training in memory has as well
        tracemalloc.reset_peak()
        streams = data.streams("unlabelled", [0], 50)
        index = data.first_index(streams)
        assert isinstance(streams[0], WindowedStream)
        orders = 8 * (2 * SLOTS + 2) * settings.window + 8 * 3 * 20_000  # of rows, not of features
        with closing(data):
            for number in range(450):
                data.write_indices(index, streams, number)
            for _ in data.test_batches(1000):
                pass
        peak = tracemalloc.get_traced_memory()[1] - rows
    finally:
        tracemalloc.stop()
    assert tensors > 0.7 * limit  # the limit is used, too
    assert tensors + peak - orders < limit


@pytest.mark.parametrize("text", ["lots", "", "0", "-1GB", "2XB", "GB", 0, -5, True, None, 1.5, ["2GB"]])
def test_a_limit_that_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="is not a size") as caught:
        parse_size(text)
    assert "--memory-limit 2GB" in str(caught.value.hint)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("2GB", "1.5 GiB", "500MB", 77)] == [2 * 10**9, 3 * 2**29, 5 * 10**8, 77]


def test_the_window_follows_from_the_limit(tmp_path: Path) -> None:
    shard, other = numbered(tmp_path / "a.h5"), numbered(tmp_path / "b.h5", rows=1000)
    settings, other_settings = streaming_settings(shard, window=None), streaming_settings(other, window=None)
    row = 8 + 4 * 9

    def windows(limit: object, together: int = 16) -> list[int | None]:
        return [
            s.window
            for s in choose_windows(limit, [settings, settings, other_settings], [shard, shard, other], together)
        ]

    assert windows(2 * 1250 * row) == [None] * 3  # what fits is not streamed
    first, second, third = windows(1000 * row)  # 500 for each shard, less 30 labelled rows: 2.5 windows
    assert first == second == third == 188
    assert windows(1000 * row, together=1)[0] == 388
    assert windows("20000B")[0] == 78
    with pytest.raises(UsageError, match=r"a memory limit of 5kB is too small for .*a.h5: its 30 labelled rows"):
        windows("5kB")
    big = streamed([streaming_settings(shard, window=32)], shard)
    with pytest.raises(UsageError, match="windows of 32 rows are too small for batches of 100"):
        big.streams("unlabelled", [0], 100)
    near = streamed([streaming_settings(shard, window=32, seed=seed) for seed in (0, 1)], shard)
    with pytest.raises(UsageError, match="30 labelled rows that differ by seed"):
        near.streams("unlabelled", [0, 1], 8)


def test_a_classifier_alone_streams_its_labelled_rows(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "shard.h5")
    settings = streaming_settings(shard, window=None, labels=1000, objective="classifier")
    (bounded,) = choose_windows(500 * (8 + 4 * 9), [settings], [shard], 1)  # fewer than it has labelled rows
    assert bounded.window


def test_without_a_limit_a_shard_too_large_for_memory_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = numbered(tmp_path / "shard.h5")
    monkeypatch.setattr(resident, "free_bytes", lambda _: 40_000_000)
    resident.load([streaming_settings(shard, window=None)], [shard], CPU)
    monkeypatch.setattr(resident, "free_bytes", lambda _: 40_000)
    with pytest.raises(DataError, match=r"shard.h5: the features take 0.0 GB, and this machine has 0.0 GB") as caught:
        resident.load([streaming_settings(shard, window=None)], [shard], CPU)
    assert "--memory-limit" in str(caught.value.hint)


def test_free_memory_is_some_of_the_machine() -> None:
    assert 0 < machine_memory.free_bytes(CPU) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
