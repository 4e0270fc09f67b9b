"""Files from an untrusted source: they run no code, write nothing outside, and fill no memory by a lying header."""

import ast
import json
import os
import resource
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.datasets.archives import unpack
from pipeline.datasets.washington import Frame, read_frame
from pipeline.features.vgg import make_network
from pipeline.features.weights import Weights
from pipeline.runtime.errors import DataError, StorageError
from pipeline.runtime.hdf5 import MOST_BEYOND
from pipeline.runtime.tensor_files import read_tensor_file
from pipeline.shards.shard import Shard
from tests.support.paths import ROOT

FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml",
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub", "numpy.load",
}  # fmt: skip


def calls_and_imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((name.name, node) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{name.name}", node) for name in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_is_unpickled_or_evaluated() -> None:
    """The one reader of a pickle is torch's own restricted one, which makes tensors and runs nothing."""
    loads = []
    for path in [ROOT / "cli.py", *(ROOT / "pipeline").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")]:
        for name, node in calls_and_imports(path):
            assert name not in FORBIDDEN, f"{path}: {name}"
            assert not any(name.startswith(f"{forbidden}.") for forbidden in FORBIDDEN), f"{path}: {name}"
            if name == "np.load" and isinstance(node, ast.Call):  # in the programs that run without mmssl
                assert [k.arg for k in node.keywords if ast.unparse(k.value) == "False"] == ["allow_pickle"], path
            if name == "torch.load" and isinstance(node, ast.Call):
                assert [k.arg for k in node.keywords if ast.unparse(k.value) == "True"] == ["weights_only"], path
                loads.append(path.name)
            if isinstance(node, ast.Call) and any(
                k.arg in ("allow_pickle", "shell") and ast.unparse(k.value) != "False" for k in node.keywords
            ):
                raise AssertionError(f"{path}: {ast.unparse(node)}")
    assert loads == ["weights.py"]


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "state.safetensors", "shard.h5"])
def test_a_pickle_by_any_name_runs_nothing(name: str, tmp_path: Path) -> None:
    path, place = tmp_path / name, tmp_path / "it ran"
    torch.save({"features.0.weight": Evil(place)}, path)
    readers: dict[str, Callable[[Path], object]] = {"shard.h5": Shard.open, "state.safetensors": read_tensor_file}
    read = readers.get(name, lambda path: make_network(Weights(name, "0" * 64, path), 3, 0, torch.device("cpu")))
    with pytest.raises(DataError, match=str(path)):
        read(path)
    assert not place.exists()


# --- archives --------------------------------------------------------------------------------------------------------


def archive(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "C:\\evil", "a\\..\\..\\evil", "C:evil", "//evil/x", "a/b/../../../evil"],
)
def test_an_archive_writes_nothing_outside(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", ("good", b"1", 0o644), (name, b"2", 0o644))
    with pytest.raises(DataError, match="would lie outside"):
        unpack(path, tmp_path / "here" / "unpacked")
    assert {entry.name for entry in tmp_path.rglob("*")} == {"a.zip", "here"}


def test_an_archive_makes_plain_files_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a link"):
        unpack(archive(tmp_path / "l.zip", ("a", b"/etc/passwd", stat.S_IFLNK | 0o777)), tmp_path / "unpacked")
    members = [("device", b"", stat.S_IFBLK | 0o666), ("pipe", b"x", stat.S_IFIFO | 0o666), ("s", b"", 0o6777)]
    folder = unpack(archive(tmp_path / "d.zip", *members), tmp_path / "unpacked")
    for path in folder.iterdir():
        assert stat.S_ISREG(path.stat().st_mode)
        assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


def test_a_file_twice_in_an_archive(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path / "a.zip", ("a", b"1", 0o644), ("a", b"2", 0o644))
    with pytest.raises((DataError, StorageError)):
        unpack(path, tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_a_bomb_is_refused_by_its_declared_size_and_held_to_it(tmp_path: Path, small_disk: Path) -> None:
    path = archive(tmp_path / "bomb.zip", ("zeros", bytes(2 * 2**20), 0o644))
    assert path.stat().st_size < 10_000
    with pytest.raises(StorageError, match="it takes 2,097,152 bytes"):
        unpack(path, small_disk / "unpacked")
    content = path.read_bytes().replace(struct.pack("<I", 2 * 2**20), struct.pack("<I", 7))  # it says 7 bytes
    path.write_bytes(content)
    with pytest.raises(DataError, match="not an intact archive"):
        unpack(path, small_disk / "unpacked")
    assert not list(small_disk.iterdir())


# --- headers that lie ------------------------------------------------------------------------------------------------


READ_ALL = """
import resource, sys
from pathlib import Path
from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Shard
from pipeline.runtime.tensor_files import read_tensor_file
from pipeline.datasets.washington import Frame, read_frame

def frame(path):
    return read_frame(Frame("cup", 1, 1, 1, path.parent, has_mask=False, has_loc=False))

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    read = {".h5": Shard.open, ".png": frame, ".safetensors": read_tensor_file}[path.suffix]
    try:
        read(path)
    except DataError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(path, 1024 * grown, str(path) in error.message)
    else:
        print(path, "was read")
"""


def test_headers_that_lie_take_no_memory(make_shard: Callable[..., Shard], tmp_path: Path) -> None:
    """In a process of its own with little address space, which would fail, or be seen to grow."""
    paths = []
    for k, how in enumerate(LIES):
        path = make_shard(tmp_path / f"lie-{k}.h5").path
        with h5py.File(path, "r+", libver="latest") as file:
            lie(file, how)
        paths.append(path)
    for k, side in enumerate((13_000, 2**20, 2**31 - 1)):
        folder = tmp_path / str(k)
        folder.mkdir()
        paths.append(png_bomb(folder / "cup_1_1_1_crop.png", side))
    nested = tmp_path / "nested.safetensors"
    nested.write_bytes(struct.pack("<Q", 500_000) + b'{"a":' * 100_000)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ_ALL, *map(str, [*paths, nested])],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(path) for path in [*paths, nested]]
    for name, grown, *named in lines:
        assert grown.isdecimal(), f"{name}: was read"
        assert named == ["True"], name
        assert int(grown) < 8 * MOST_BEYOND, name


def png_bomb(path: Path, side: int) -> Path:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(2**22), 9))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b""))
    return path


LIES = (
    "petabytes in one chunk",
    "a bomb of zeros",
    "one chunk for all rows",
    "never written",
    "ids that share one long text",
)


def lie(file: h5py.File, how: str) -> None:
    del file["train/x"]
    zeros = {"dtype": "f4", "compression": "gzip", "fillvalue": 0}
    if how == "petabytes in one chunk":
        x = file.create_dataset("train/x", (2**25, 2**20), chunks=(2**9, 2**20), dtype="f4", fillvalue=0)
        for k in range(2):
            x.id.write_direct_chunk((k * 2**9, 0), b"little")
    elif how == "a bomb of zeros":
        file.create_dataset("train/x", (40, 2**24), chunks=(1, 2**24), **zeros)
        packed = zlib.compress(bytes(2**26), 9)
        for k in range(40):
            file["train/x"].id.write_direct_chunk((k, 0), packed)
    elif how == "one chunk for all rows":
        file.create_dataset("train/x", (20, 4), maxshape=(None, None), chunks=(2**14, 2**14), **zeros)
        file["train/x"].id.write_direct_chunk((0, 0), zlib.compress(bytes(100)))
    elif how == "never written":
        file.create_dataset("train/x", (20, 2**30), dtype="f4")
    elif how == "ids that share one long text":
        file.create_dataset("train/x", data=np.zeros((20, 4), np.float32))
        del file["train/id"]
        ids = file.create_dataset("train/id", (20,), dtype=h5py.string_dtype())
        ids[...] = ["y" * 2**20] * 20


def test_an_attribute_that_is_declared_far_too_large(
    make_shard: Callable[..., Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_shard().path
    monkeypatch.setattr("pipeline.runtime.hdf5.MOST_BEYOND", 32)
    with pytest.raises(DataError, match=r"the attribute digest is damaged .*far too large"):
        Shard.open(path)


def test_a_state_whose_header_lies_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for header in (
        b"",
        json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}).encode(),
        b'{"a":' * 100_000,
    ):
        for length in (len(header), 2**31, 2**63):
            path.write_bytes(struct.pack("<Q", length) + header)
            with pytest.raises(DataError, match="is damaged, or was not written by mmssl"):
                read_tensor_file(path)


def test_only_the_formats_of_cameras_are_decoded(tmp_path: Path) -> None:
    frame = Frame("cup", 1, 1, 1, tmp_path, has_mask=False, has_loc=False)
    frame.rgb.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(DataError, match="not a readable picture: its format is not known"):
        read_frame(frame)


def test_deeply_nested_json_and_toml(tmp_path: Path) -> None:
    from trainer.settings.sources import read_toml
    from trainer.training.run_folder import Run

    (tmp_path / "settings.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"cannot read .*settings\.json"):
        Run.open(tmp_path)
    (tmp_path / "settings.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(DataError, match="cannot read the settings file"):
        read_toml(tmp_path / "settings.toml")
