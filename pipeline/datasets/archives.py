"""Unpacking untrusted archives, zip or tar: nothing outside the folder, no links, whole or not at all."""

import logging
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.runtime.contents import other_kind_of
from pipeline.runtime.errors import DataError, StorageError
from pipeline.runtime.files import flush, storage_error
from pipeline.runtime.leases import lease

_log = logging.getLogger(__name__)
NAMES = re.compile(r".+\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))", re.IGNORECASE)
# What zipfile, tarfile and their decompressors raise on damaged files, depending on where the damage is.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
)
_HINT = "move it away and fetch it again"


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its name, its size, and whether it is something else than a file."""

    name: str
    size: int
    kind: str | None
    source: zipfile.ZipInfo | tarfile.TarInfo


class _Archive:
    """An open zip or tar file."""

    def __init__(self, file: zipfile.ZipFile | tarfile.TarFile) -> None:
        self._file = file

    def members(self) -> list[_Member]:
        """Everything in it but folders."""
        if isinstance(self._file, zipfile.ZipFile):
            return [
                _Member(m.filename, m.file_size, "a link" if stat.S_ISLNK(m.external_attr >> 16) else None, m)
                for m in self._file.infolist()
                if not m.is_dir()
            ]
        return [
            _Member(m.name, m.size, None if m.isreg() else "a link" if m.issym() or m.islnk() else "not a file", m)
            for m in self._file.getmembers()
            if not m.isdir()
        ]

    def open(self, member: _Member) -> IO[bytes]:
        if isinstance(self._file, zipfile.ZipFile):
            assert isinstance(member.source, zipfile.ZipInfo)
            return self._file.open(member.source)
        assert isinstance(member.source, tarfile.TarInfo)
        content = self._file.extractfile(member.source)
        assert content is not None  # it is a file
        return content


@contextmanager
def _opened(archive: Path) -> Iterator[_Archive]:
    if not zipfile.is_zipfile(archive):
        try:
            tar = tarfile.open(archive)  # noqa: SIM115
        except tarfile.ReadError:
            tar = None
        if tar is not None:
            with tar:
                yield _Archive(tar)
            return
    with zipfile.ZipFile(archive) as file:  # raises what is wrong, if it is neither
        yield _Archive(file)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a zip or tar file into `folder`, which appears whole or not at all; an existing folder is left as it is.

    What kind it is, its content says and not its name. If another process is unpacking it, waits for that one.

    Raises:
        DataError: it is not an intact archive, or a member would lie outside the folder or is a link.
        StorageError: there is not enough room, or the disk refuses.
    """
    with lease(folder, wait=lambda: None):
        return folder if folder.exists() else _unpack(archive, folder)


def _unpack(archive: Path, folder: Path) -> Path:
    unfinished = folder.with_name(f".{folder.name}.partial")
    try:
        with _opened(archive) as file:
            members = [(member, _target(archive, member)) for member in file.members()]
            if not members:
                raise DataError(f"{archive}: contains no files", _HINT)
            _clear(unfinished)
            unfinished.mkdir(parents=True)
            needed, free = sum(member.size for member, _ in members), shutil.disk_usage(unfinished).free
            if needed > free:
                raise StorageError(
                    f"cannot unpack {archive}: it takes {needed:,} bytes, and {free:,} are free in {folder.parent}",
                    "free some space or choose another --root, then run it again",
                )
            _log.info("unpacking %d files of %s into %s", len(members), archive, folder)
            for member, target in members:
                path = unfinished / target
                path.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, path.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
        unfinished.rename(folder)
        flush(folder.parent)
    except _DAMAGE as error:
        _clear(unfinished)
        raise _damaged(archive, error) from error
    except OSError as error:
        _clear(unfinished)
        if error.errno is None:  # raised by gzip or bz2 about its data, not by the disk
            raise _damaged(archive, error) from error
        raise storage_error(folder, error) from error
    except BaseException:
        _clear(unfinished)
        raise
    return folder


def _damaged(archive: Path, error: Exception) -> DataError:
    other = other_kind_of(archive, b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
    if other is not None:
        return DataError(f"{archive}: is {other.what}, not an archive (zip or tar)", other.hint or _HINT)
    return DataError(f"{archive}: is not an intact archive (zip or tar): {error}", _HINT)


def _target(archive: Path, member: _Member) -> PurePosixPath:
    name = member.name
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise DataError(f"{archive}: its member {name!r} would lie outside the folder; nothing was unpacked", _HINT)
    if member.kind is not None:
        raise DataError(f"{archive}: its member {name!r} is {member.kind}; nothing was unpacked", _HINT)
    return path


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
