"""Shards changed by hand, and the sentence with which they are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Shard


def refusal(path: Path) -> str:
    """The sentence with which a file is refused; it always names the file, and is one line."""
    with pytest.raises(DataError) as caught:
        Shard.open(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def edit(path: Path, change: Callable[[h5py.File], object]) -> None:
    """Changes a file by hand."""
    with h5py.File(path, "r+") as file:
        change(file)


def replace_dataset(file: h5py.File, name: str, value: object, **how: Any) -> None:
    """Replaces a dataset by one with other values."""
    del file[name]
    file.create_dataset(name, data=value, **how)
