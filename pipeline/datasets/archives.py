"""Unpacking untrusted archives: nothing outside the folder, no links, whole or not at all."""

import logging
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pipeline.runtime.errors import DataError, StorageError
from pipeline.runtime.files import flush, storage_error
from pipeline.runtime.leases import lease

_log = logging.getLogger(__name__)
# What zipfile and its decompressors raise on damaged files, depending on where the damage is.
_DAMAGE = (
    zipfile.BadZipFile,
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


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a zip file into `folder`, which appears whole or not at all; an existing folder is left as it is.

    If another process is unpacking it, waits for that one.

    Raises:
        DataError: it is not an intact zip file, or a member would lie outside the folder or is a link.
        StorageError: there is not enough room, or the disk refuses.
    """
    with lease(folder, wait=lambda: None):
        return folder if folder.exists() else _unpack(archive, folder)


def _unpack(archive: Path, folder: Path) -> Path:
    unfinished = folder.with_name(f".{folder.name}.partial")
    try:
        with zipfile.ZipFile(archive) as file:
            members = [(member, _target(archive, member)) for member in file.infolist() if not member.is_dir()]
            if not members:
                raise DataError(f"{archive}: contains no files", _HINT)
            _clear(unfinished)
            unfinished.mkdir(parents=True)
            needed, free = sum(member.file_size for member, _ in members), shutil.disk_usage(unfinished).free
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
        raise DataError(f"{archive}: is not an intact zip file: {error}", _HINT) from error
    except OSError as error:
        _clear(unfinished)
        if error.errno is None:  # raised by bz2 about its data, not by the disk
            raise DataError(f"{archive}: is not an intact zip file: {error}", _HINT) from error
        raise storage_error(folder, error) from error
    except BaseException:
        _clear(unfinished)
        raise
    return folder


def _target(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    name = member.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise DataError(f"{archive}: its member {name!r} would lie outside the folder; nothing was unpacked", _HINT)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{archive}: its member {name!r} is a link; nothing was unpacked", _HINT)
    return path


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
