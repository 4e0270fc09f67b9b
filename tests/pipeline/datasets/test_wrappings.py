"""Files of a data set in other wrappings than the published one: what they hold decides."""

import gzip
import hashlib
from pathlib import Path

import pytest

from pipeline.datasets import catalogue, mfeat
from pipeline.datasets.manifests import Manifest, RemoteFile, fetch, load, places, read_unpacked
from pipeline.runtime.errors import DataError

CONTENT = b"idx values " * 300
PACKED = gzip.compress(CONTENT, 9, mtime=0)
NAME = "digits-idx3-ubyte.gz"


@pytest.fixture
def made() -> Manifest:
    file = RemoteFile(
        name=NAME,
        also=("digits.idx3-ubyte.gz",),
        size=len(PACKED),
        sha256=hashlib.sha256(PACKED).hexdigest(),
        unpacked=hashlib.sha256(CONTENT).hexdigest(),
        trust="made here",
    )
    return Manifest(
        name="made", title="made", homepage="-", licence="-", folders=("MADE/raw", "made/MADE/raw"), files=(file,)
    )


@pytest.mark.parametrize("folder", ["raw/made", "raw/MADE/raw", "shared/made", "shared/MADE/raw", "raw/made/MADE/raw"])
@pytest.mark.parametrize("name", [NAME, NAME.removesuffix(".gz"), "digits.idx3-ubyte", "digits.idx3-ubyte.gz"])
@pytest.mark.parametrize("content", [PACKED, CONTENT, gzip.compress(CONTENT, 1, mtime=0)])
def test_what_a_file_holds_decides(
    folder: str, name: str, content: bytes, made: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "shared"))
    path = tmp_path / folder / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert fetch(made, tmp_path / "raw") == {NAME: path}
    assert read_unpacked(path) == CONTENT


def test_a_wrong_file_is_named_unless_a_right_one_is_there(made: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "made" / NAME
    path.parent.mkdir(parents=True)
    for content in (b"", CONTENT[:-1], PACKED[:-1], gzip.compress(CONTENT[1:]), b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{NAME}: has .*(not hold the same, packed or unpacked|not its content)"):
            fetch(made, tmp_path)
    right = path.with_suffix("")
    right.write_bytes(CONTENT)
    assert fetch(made, tmp_path) == {NAME: right}


def test_torchvisions_folders_are_among_mnists_places(tmp_path: Path) -> None:
    mnist = load("mnist")
    assert tmp_path / "MNIST" / "raw" in places(tmp_path, mnist.name, *mnist.folders)
    assert all({file.name.removesuffix(".gz"), file.name} < set(file.names) for file in mnist.files)


def test_mnist_unpacked_is_listed_and_verified(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in (real_data / "mnist").glob("*.gz"):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    assert catalogue.verify("mnist", tmp_path) == []
    assert {entry.name: entry.place for entry in catalogue.list_data_sets(tmp_path)}["mnist"] == folder


def test_mfeat_unpacked_gives_the_same_shard(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "raw" / "mfeat"
    folder.mkdir(parents=True)
    for path in (real_data / "mfeat").glob("*.gz"):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    built = mfeat.build(tmp_path / "shards", tmp_path / "raw").read_bytes()
    monkeypatch.setenv("MMSSL_DATA", str(real_data))
    assert mfeat.build(tmp_path / "others", tmp_path / "nothing").read_bytes() == built


def test_an_archive_beside_is_named(tmp_path: Path) -> None:
    (tmp_path / "mfeat").mkdir()
    (tmp_path / "mfeat" / "multiple+features.zip").touch()
    with pytest.raises(DataError, match=r"multiple\+features\.zip is there, but not unpacked") as caught:
        mfeat.locate(tmp_path)
    assert "unpack" in str(caught.value.hint)
