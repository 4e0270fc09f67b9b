"""Arrays in files: what was written comes back; what would have to be unpickled, or lies about its size, is refused."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.runtime import arrays
from pipeline.runtime.arrays import npy_shape, read_npy, read_npz, write_npz
from pipeline.runtime.errors import DataError

KINDS = st.sampled_from([np.dtype(name) for name in ("f4", "f8", "i8", "u1", "?", "<U3", "S3", ">f4")])


@given(array=KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))))
def test_what_was_written_comes_back(array: NDArray[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    write_npz(folder / "a.npz", {"x": array, "Löffel": np.asfortranarray(array)})
    read = read_npz(folder / "a.npz")
    assert list(read) == ["x", "Löffel"]
    for value in read.values():
        assert value.dtype == array.dtype
        np.testing.assert_array_equal(value, array)
    np.save(folder / "a.npy", array)
    np.testing.assert_array_equal(read_npy(folder / "a.npy"), array)
    assert npy_shape(folder / "a.npy") == array.shape


def test_compressed_files_are_read_and_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=np.zeros((100, 3)))
    assert read_npz(tmp_path / "c.npz")["x"].shape == (100, 3)
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, {"x": np.arange(3)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.place,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x=np.array([Evil(tmp_path / "it ran")], dtype=object))
    with pytest.raises(DataError, match=r"evil\.npz: 'x' holds Python objects, which are never unpickled"):
        read_npz(tmp_path / "evil.npz")
    assert not (tmp_path / "it ran").exists()


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("shape", ["(1099511627776,)", "(4611686018427387904, 4)", "(-1,)", "(3,)"])
def test_a_header_that_lies_takes_no_memory(shape: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header(shape) + bytes(8))
    with pytest.raises(DataError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MOST_BEYOND", 0)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(2**20))
    with pytest.raises(DataError, match="more than the file holds"):
        read_npz(tmp_path / "bomb.npz")
    monkeypatch.setattr(arrays, "MOST_ARRAYS", 1)
    np.savez(tmp_path / "many.npz", x=np.zeros(1), y=np.zeros(1))
    with pytest.raises(DataError, match="holds 2 arrays, more than 1"):
        read_npz(tmp_path / "many.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"PK\x03\x04" + bytes(50)])
def test_what_is_no_npz_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: is not an intact file of NumPy arrays"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"there is no .*absent\.npz"):
        read_npz(tmp_path / "absent.npz")


def test_a_later_version_of_the_format_is_named(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.zeros(2), version=(3, 0))
    (tmp_path / "a.npy").write_bytes(content.getvalue())
    with pytest.raises(DataError, match=r"version \(3, 0\) of NumPy's format"):
        read_npy(tmp_path / "a.npy")
