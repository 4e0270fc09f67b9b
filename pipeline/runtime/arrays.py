"""NumPy's `.npz` and `.npy` files, read without unpickling anything and within bounds that the file itself sets."""

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.runtime.contents import other_kind_of
from pipeline.runtime.errors import DataError, Interrupted
from pipeline.runtime.files import write_atomically

MOST_COMPRESSED = 256  # an array may be this many times as large as what stores it, plus MOST_BEYOND bytes
MOST_BEYOND = 2**26
MOST_ARRAYS = 10_000  # in one file
KINDS = "biufUS"  # booleans, integers, floats, text: whatever else there is would have to be unpickled, or is no data
HINT = "write it with numpy.savez(FILE, x=..., w=...): arrays of numbers or text"
_OBJECTS_HINT = "save numbers, and labels as texts of a fixed length: array.astype(str)"


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays by name, uncompressed; equal arrays give equal bytes.

    Raises:
        StorageError: the disk is full or refuses.
    """
    content = BytesIO()
    np.savez(content, **dict(arrays))  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file by name.

    Raises:
        DataError: the file is missing or damaged, holds something other than numbers and text, or declares far more
            than it stores.
    """
    arrays = {}
    with _damage(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_ARRAYS:
            raise DataError(f"{path}: holds {len(members):,} arrays, more than {MOST_ARRAYS:,}", HINT)
        room = _room(path)
        for member in members:
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                arrays[name] = _read(path, name, file, min(room, member.file_size))
            room -= arrays[name].nbytes
    return arrays


def read_npy(path: Path) -> NDArray[Any]:
    """The array of an `.npy` file.

    Raises:
        DataError: as `read_npz`.
    """
    with _damage(path), path.open("rb") as file:
        return _read(path, path.stem, file, path.stat().st_size)


def npy_shape(path: Path) -> tuple[int, ...]:
    """The shape of the array of an `.npy` file, without reading its values.

    Raises:
        DataError: as `read_npz`.
    """
    with _damage(path), path.open("rb") as file:
        return _header(path, path.stem, file, path.stat().st_size)[0]


def _room(path: Path) -> int:
    return MOST_BEYOND + MOST_COMPRESSED * path.stat().st_size


def _header(path: Path, name: str, file: IO[bytes], room: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape of an array, whether it is in Fortran's order, and its type, if that is no more than there is."""
    version = npy.read_magic(cast(Any, file))
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{path}: '{name}' has version {version} of NumPy's format, which is not known here", HINT)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(cast(Any, file))
    if dtype.hasobject:
        raise DataError(f"{path}: '{name}' holds Python objects, which are never unpickled", _OBJECTS_HINT)
    if dtype.kind not in KINDS:
        raise DataError(f"{path}: '{name}' holds {dtype}, not numbers or text", HINT)
    if math.prod(shape) * dtype.itemsize > room or min(shape, default=0) < 0:
        raise DataError(f"{path}: '{name}' is declared as {shape} of {dtype}, more than the file holds", HINT)
    return shape, fortran, dtype


def _read(path: Path, name: str, file: IO[bytes], room: int) -> NDArray[Any]:
    """Reads one array, once its header is known to declare no more than there is."""
    shape, fortran, dtype = _header(path, name, file, room)
    size = math.prod(shape) * dtype.itemsize
    content = file.read(size)
    if len(content) < size:
        raise DataError(f"{path}: '{name}' is cut short", HINT)
    array = np.frombuffer(content, dtype) if size else np.empty(0, dtype)
    return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what NumPy and zipfile raise on missing and damaged files into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no {path}") from None
    except (
        OSError, ValueError, TypeError, KeyError, EOFError, RecursionError, MemoryError, OverflowError, RuntimeError,
        NotImplementedError, SyntaxError, zipfile.BadZipFile, zipfile.LargeZipFile,
    ) as error:  # fmt: skip
        other = other_kind_of(path, b"PK\x03\x04", b"\x93NUMPY")
        if other is not None:
            raise DataError(f"{path}: is {other.what}, not a file of NumPy arrays", other.hint or HINT) from None
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: is not an intact file of NumPy arrays ({reason})", HINT) from None
    except Exception as error:  # zlib.error, tokenize.TokenError and others that Python keeps in many places
        if isinstance(error, DataError | Interrupted):
            raise
        raise DataError(f"{path}: is not an intact file of NumPy arrays ({type(error).__name__})", HINT) from None
