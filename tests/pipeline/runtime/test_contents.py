"""Files that are something else than their name says: each reader names what they are and what mends it."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.archives import unpack
from pipeline.datasets.pictures import read_colour, read_depth
from pipeline.runtime.arrays import read_npy, read_npz
from pipeline.runtime.contents import other_kind, other_kind_of
from pipeline.runtime.errors import DataError
from pipeline.runtime.hdf5 import reading
from pipeline.runtime.tensor_files import read_tensor_file, read_values
from pipeline.runtime.texts import read_text

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\n  <!DOCTYPE html><html><body>Quota exceeded</body></html>"


def open_hdf5(path: Path) -> None:
    with reading(path):
        pass


def unpacked(path: Path) -> None:
    unpack(path, path.parent / "unpacked")


READERS: dict[str, Callable[[Path], object]] = {
    "a.png": read_colour,
    "b.png": read_depth,
    "a.npz": read_npz,
    "a.npy": read_npy,
    "a.h5": open_hdf5,
    "a.safetensors": read_tensor_file,
    "b.safetensors": read_values,
    "a.csv": read_text,
    "a.zip": unpacked,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (POINTER, "a pointer of Git LFS", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--1.png\n", "a pointer of git-annex", "git annex get"),
        (PAGE, "a web page", "download it again"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "an XML text", "download it again"),
    ],
)
def test_every_reader_says_what_lies_in_the_file_s_place(
    name: str, content: bytes, what: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.* is {what}") as caught:
        READERS[name](tmp_path / name)
    assert caught.value.hint is not None
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"x", mtime=0), "compressed (gzip)"),
        (b"GIF89a\1\0", "a GIF picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC picture"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "AppleDouble"),
        (pickle.dumps([1.5]), "a Python pickle"),
        (bytes(5000), "nothing but zero bytes"),
        (b"", None),
        (bytes(8), None),
        (b"label,x.0\ncup,1\n", None),
        (np.arange(9.0).tobytes()[8:], None),
    ],
)
def test_first_bytes(content: bytes, what: str | None) -> None:
    found = other_kind(content)
    assert found is None if what is None else found is not None and what in found.what


def test_what_begins_as_it_should_is_damaged_and_nothing_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:-300])
    assert other_kind_of(tmp_path / "a.npz", b"PK\x03\x04") is None
    assert other_kind_of(tmp_path / "nowhere") is None
    with pytest.raises(DataError, match="not an intact file of NumPy arrays"):
        read_npz(tmp_path / "a.npz")
