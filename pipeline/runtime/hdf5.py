"""All access to HDF5: files are created, opened and read here, and each of HDF5's errors becomes one sentence."""

import io
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.contents import other_kind_of
from pipeline.runtime.errors import DataError

CHUNK_BYTES = 2**20  # one chunk is one disk read and one checksum
BLOCK_BYTES = 2**23  # read at a time when a whole data set is scanned
MISSING_HINT = "check the path, or run the command that builds the file"
DAMAGE_HINT = "delete it and run the command that built it again"
CONTENT_HINT = "the file was written by another program, or for another purpose"
# A data set may declare MOST_BEYOND bytes more than MOST_COMPRESSED (the highest plausible compression) times what the
# file stores. A header that declares more is wrong, and would fill the memory before anything is read.
MOST_BEYOND = 2**26
MOST_COMPRESSED = 256
MOST_TEXT = 1000  # characters per text of a data set
_TEXTS_AT_ONCE = 64  # few, since many entries may refer to the same long text
# A format that every HDF5 since 1.10 (2016) opens, and the first in which HDF5 checksums its own metadata too.
_LIBVER = ("v110", "v110")
# What h5py raises on damaged files, depending on where the damage is.
_H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError)


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading, without file locks (they fail on many network disks, and nobody writes to it).

    Raises:
        DataError: there is no such file, it may not be read, or it is not an intact HDF5 file.
    """
    try:
        empty = path.stat().st_size == 0
        with path.open("rb"):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: cannot be read: {reason}", MISSING_HINT) from error
    if empty:
        raise DataError(f"{path}: is an empty file", DAMAGE_HINT)
    if not h5py.is_hdf5(path):
        if (other := other_kind_of(path, b"\x89HDF")) is not None:
            raise DataError(f"{path}: is {other.what}, not an HDF5 file", other.hint)
        raise DataError(f"{path}: is not an HDF5 file, or its beginning is damaged", DAMAGE_HINT)
    with _damage(path, "the file"):
        file = h5py.File(path, "r", locking=False)
    try:
        yield file
    finally:
        file.close()


def dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A data set, checked to exist, to be stored in this very file, and to be complete.

    Raises:
        DataError: one of these does not hold, or a header declares more than the file can hold.
    """
    source = _member(path, file, name)
    if not isinstance(source, h5py.Dataset):
        raise DataError(f"{path}: the data set {name} is missing", CONTENT_HINT)
    with _damage(path, name):
        elsewhere = source.is_virtual or source.external or source.file.id != file.id
        if source.chunks:
            declared = math.prod(-(-n // c) for n, c in zip(source.shape, source.chunks, strict=True))
            stored = source.id.get_num_chunks()
        else:
            declared, stored = source.nbytes, source.id.get_storage_size()
        size = source.dtype.itemsize * max(math.prod(source.shape), math.prod(source.chunks or (0,)))
        room = MOST_BEYOND + MOST_COMPRESSED * min(source.id.get_storage_size(), path.stat().st_size)
    if elsewhere:
        raise DataError(f"{path}: the data set {name} lies in another file")
    if stored < declared:
        raise DataError(f"{path}: {name} is declared as {source.shape}, but was not written to its end", DAMAGE_HINT)
    if size > room:
        raise DataError(
            f"{path}: {name} is declared as {source.shape} in chunks of {source.chunks}, far more than the file holds",
            DAMAGE_HINT,
        )
    return source


def members(path: Path, file: h5py.File, name: str) -> list[str]:
    """The names inside a group.

    Raises:
        DataError: there is no such group, or it is damaged.
    """
    group = _member(path, file, name)
    if not isinstance(group, h5py.Group):
        raise DataError(f"{path}: the group {name} is missing", CONTENT_HINT)
    with _damage(path, name):
        return list(group)


def read(path: Path, source: h5py.Dataset, rows: slice | None = None) -> NDArray[Any]:
    """Reads rows of a data set as stored.

    Raises:
        DataError: a checksum does not match, or bytes are missing.
    """
    with _damage(path, str(source.name).lstrip("/")):
        return np.asarray(source[rows or slice(None)])


def read_text(path: Path, source: h5py.Dataset) -> NDArray[np.str_]:
    """Reads a data set of UTF-8 strings, of fixed or variable length.

    Raises:
        DataError: it holds no text, or is damaged.
    """
    name = str(source.name).lstrip("/")
    if h5py.check_string_dtype(source.dtype) is None:
        raise DataError(f"{path}: {name} is {source.dtype}, not text")
    with _damage(path, name):
        texts: list[str] = []
        for start in range(0, len(source), _TEXTS_AT_ONCE):
            texts.extend(source.asstr()[start : start + _TEXTS_AT_ONCE])
            longest = max(map(len, texts[start:]))
            if longest > MOST_TEXT:
                raise DataError(f"{path}: {name} holds a text of {longest} characters, more than {MOST_TEXT}")
        return np.array(texts, dtype=np.str_)


def attribute(path: Path, file: h5py.File, name: str) -> Any:
    """Reads an attribute of the root as a plain str, int or float, or as an array; None if it is absent.

    Raises:
        DataError: it cannot be read.
    """
    with _damage(path, f"the attribute {name}"):
        if name not in file.attrs:
            return None
        declared = file.attrs.get_id(name)
        if declared.dtype.itemsize * math.prod(declared.shape) > MOST_BEYOND:
            raise MemoryError("it is declared far too large")
        value = file.attrs[name]
        if isinstance(value, bytes):
            return value.decode()
        return value.item() if isinstance(value, np.generic) else value


@contextmanager
def creating(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file to write to, and a function that raises the disk's error if there was one (call it often).

    HDF5 aborts the whole process when it closes a file on a full disk, so errors are hidden from it: it writes through
    `_Sink`, which remembers the first error and pretends that everything after it was written. The error is raised
    here.

    Raises:
        OSError: the disk is full or refuses.
    """
    with path.open("w+b", buffering=0) as raw:
        sink = _Sink(raw)
        try:
            with h5py.File(sink, "w", libver=_LIBVER) as file:
                yield file, sink.check
        except _H5_ERRORS:
            sink.check()
            raise
        sink.check()


def write_rows(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Writes a whole array as a chunked, checksummed data set; text as fixed-length UTF-8."""
    if values.dtype.kind == "U":
        values = np.char.encode(values, "utf-8")
        values = values.astype(h5py.string_dtype("utf-8", values.itemsize))  # NumPy's own bytes would count as ASCII
    with creating_rows(group, name, values.shape, values.dtype) as target:
        target[...] = values


@contextmanager
def creating_rows(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[h5py.Dataset]:
    """A new data set `[N, ...]` to fill: chunks of whole rows of about 1 MiB, each with a checksum.

    It is closed at the end: HDF5 then gives its last chunks their place in the file. Left to Python, that would be when
    the last reference goes, and another thread may keep one for a moment (Dask's profiler looks at our frames every
    10 ms): equal contents would not always be equal bytes.
    """
    row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
    rows = max(1, min(shape[0], CHUNK_BYTES // row_bytes))
    stored = {"chunks": (rows, *shape[1:]), "fletcher32": True} if shape[0] else {}  # no rows, no chunks
    target = group.create_dataset(name, shape, dtype, **stored)
    try:
        yield target
    finally:
        target.id.close()


def write_attribute(file: h5py.File, name: str, value: str | int) -> None:
    """Writes an attribute of the root: an integer, or text stored in place, where HDF5's own checksum covers it."""
    if isinstance(value, int):
        file.attrs[name] = value
    else:
        content = value.encode()
        file.attrs.create(name, np.bytes_(content), dtype=h5py.string_dtype("utf-8", max(1, len(content))))


def parse_json(path: Path, name: str, text: object, kind: type) -> Any:
    """Parses the JSON text of an attribute, whose outermost value must be a `kind` (list or dict).

    Raises:
        DataError: it is not.
    """
    expected = "a JSON list" if kind is list else "a JSON object"
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise DataError(f"{path}: the attribute {name} is not the text of {expected}")
    return value


def _member(path: Path, file: h5py.File, name: str) -> Any:
    # One level at a time: given a whole path, HDF5 cannot tell a missing object from a damaged one.
    node: Any = file
    for step in name.split("/"):
        with _damage(path, name):
            node = node[step] if isinstance(node, h5py.Group) and step in list(node) else None
    return node


@contextmanager
def _damage(path: Path, subject: str) -> Iterator[None]:
    """Turns what h5py raises on damaged files into one sentence."""
    try:
        yield
    except _H5_ERRORS as error:
        detail = re.search(r"\((.*)\)", str(error), re.DOTALL)
        reason = (detail[1] if detail else str(error)).strip().splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: {subject} is damaged or cut short ({reason})", DAMAGE_HINT) from error


class _Sink(io.RawIOBase):
    """A raw file on which writing never fails: the first error is remembered, and raised by `check`."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._error: OSError | None = None

    def check(self) -> None:
        if self._error:
            raise self._error

    def write(self, data: Any) -> int:
        remaining = memoryview(data)
        size = len(remaining)
        try:
            while remaining and not self._error:
                remaining = remaining[self._raw.write(remaining) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        return self._raw.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def seekable(self) -> bool:
        return True
