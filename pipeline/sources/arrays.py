"""NumPy's own files: opened without unpickling, and each error that a damaged one causes is one sentence."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError

# What NumPy and the zip format raise on damaged files, depending on where the damage is.
_DAMAGE = (
    OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, KeyError, TypeError, RuntimeError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_HINT = "write it again with NumPy"


def open_npy(path: Path) -> NDArray[Any]:
    """The array in an `.npy` file, mapped and not read.

    Raises:
        DataError: it is damaged, or holds Python objects.
    """
    return _checked(str(path), lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in an `.npz` file, by name.

    Raises:
        DataError: it is damaged, or holds Python objects.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: _checked(f"{path}: {name}", partial(file.__getitem__, name)) for name in file.files}
    except (*_DAMAGE, AttributeError) as error:  # an attribute is missing where it is a bare array
        raise DataError(f"{path}: is not an .npz file that can be read", "write it again with numpy.savez") from error


def _checked(where: str, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    try:
        array = read()
        if not isinstance(array, np.ndarray):
            raise ValueError("it is not an array")
    except _DAMAGE as error:
        words = str(error).partition("\n")[0]
        if "allow_pickle" in words or "Python objects" in words:
            raise DataError(
                f"{where}: holds Python objects, which are never unpickled",
                "save numbers, and labels as texts of a fixed length: array.astype(str)",
            ) from error
        raise DataError(f"{where}: cannot be read: {words or type(error).__name__}", _HINT) from error
    return array
