"""Files that are written whole or not at all."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runtime.errors import StorageError, UsageError
from pipeline.runtime.processes import Process, this_process

_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "there is a folder with that name",
}

_CANNOT_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_CANNOT_FLUSH_FOLDER = {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one-sentence error for a write to `path` that the system refused."""
    reason = _STORAGE.get(error.errno or 0, error.strerror or str(error))
    return StorageError(
        f"cannot write {path}: {reason}", "free some space or choose another folder (--root, --out), then run it again"
    )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` to write to; on success it is flushed to disk and renamed to `path`.

    On any failure the temporary file is removed and whatever was at `path` is untouched. An error that is not about
    writing this file (but about a source read meanwhile, or the network) passes through unchanged.

    Raises:
        StorageError: the disk is full, read-only, or refuses.
        UsageError: the path is a folder, such as `.`.
    """
    if not path.name:
        raise UsageError(f"{path} is a folder, not a file to write", f"name a file in it: {path / 'FILE'}")
    temporary = path.with_name(f".{path.name}.{this_process()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        written = {None, *map(str, (temporary, path, path.parent, *path.parent.parents))}
        if error.errno is None or (error.filename and str(error.filename)) not in written:
            raise
        raise storage_error(path, error) from error


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes `content` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_if_changed(path: Path, content: bytes | str) -> None:
    """`write_atomically`, unless the file has this content already: finished work may lie on a read-only disk."""
    new = content.encode() if isinstance(content, str) else content
    try:
        if path.read_bytes() == new:
            return
    except OSError:  # missing or unreadable: writing reports why
        pass
    write_atomically(path, new)


def sweep(folder: Path, pattern: str = ".*.partial", others: bool = False) -> None:
    """Removes temporary files and folders that killed processes left behind.

    Args:
        pattern: of their names.
        others: also those of other hosts, whose processes cannot be checked. Only for callers that know that nobody
            else writes there.

    Raises:
        StorageError: the disk refuses.
    """
    for path in folder.glob(pattern):
        owner = Process.parse(path.name.split(".")[-2])
        if owner is not None and owner != this_process() and (others or owner.gone):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                remove(path)


def remove(path: Path) -> None:
    """Removes a file, which may be gone already.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def flush(path: Path) -> None:
    """Flushes a file or folder to disk (fsync), so that a power cut loses nothing of it.

    Some file systems (FUSE, SMB, some of clusters) cannot flush a folder, or let nobody open one: then its entry is as
    safe as they make it. A file that cannot be flushed for want of room or permission is an error, as ever.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in _CANNOT_FLUSH_FOLDER and path.is_dir():
            return
        raise
    try:
        flush_descriptor(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH_FOLDER or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def flush_descriptor(descriptor: int) -> None:
    """Flushes an open file to disk, where its file system can do that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise


def sha256(path: Path) -> str:
    """The hex digest of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
