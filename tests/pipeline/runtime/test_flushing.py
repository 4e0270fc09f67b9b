"""File systems that cannot flush: the same files, as safe as the file system makes them."""

import errno
import os
import stat
from pathlib import Path

import pytest

from pipeline.runtime.errors import StorageError
from pipeline.runtime.files import atomic_path, write_atomically
from pipeline.runtime.leases import lease


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, folders: bool) -> None:
    """Makes fsync refuse, for folders or for files."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM])
def test_folders_need_not_be_flushed(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuse(monkeypatch, number, folders=True)
    write_atomically(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_nor_files_where_that_does_not_exist(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuse(monkeypatch, number, folders=False)
    with lease(tmp_path / "a"):
        write_atomically(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("number", "folders"), [(errno.EIO, True), (errno.EIO, False), (errno.ENOSPC, False)])
def test_a_disk_that_fails_is_an_error(
    number: int, folders: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refuse(monkeypatch, number, folders)
    with pytest.raises(StorageError), atomic_path(tmp_path / "a") as path:
        path.write_text("text")
