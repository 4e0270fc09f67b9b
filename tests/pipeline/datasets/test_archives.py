"""Archives: taken where they were placed by hand, and refused where they are damaged or lead elsewhere."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.datasets import catalogue
from pipeline.datasets.archives import unpack
from pipeline.runtime.errors import DataError
from tests.support.preprocessing import preprocess
from tests.support.rgbd_frames import OBJECTS, contents, write_frames


def pack(path: Path, members: Mapping[str, bytes]) -> Path:
    import gzip
    import io
    import lzma
    import tarfile
    import zipfile

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".zip":
        packing = {".gz": gzip.compress, ".tgz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
        content_of_tar = io.BytesIO()
        with tarfile.open(fileobj=content_of_tar, mode="w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        path.write_bytes(packing(content_of_tar.getvalue()))
        return path
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["rgbd-dataset_eval.zip", "rgbd-dataset_eval.tar", "washington-rgbd/rgbd-dataset.tgz"])
def test_an_archive_placed_by_hand_is_taken_and_what_deviates_is_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    folder = write_frames(tmp_path / "elsewhere")
    members = {f"rgbd-dataset/{name}": content for name, content in contents(folder).items()}
    pack(tmp_path / "raw" / name, members)
    messages = catalogue.fetch("washington-rgbd", tmp_path)
    assert "advisory" in caplog.text  # the checksum is not the one on record
    assert "category apple is missing" in messages
    assert "category hat is not one of the data set's" in messages
    assert catalogue.verify("washington-rgbd", tmp_path) == messages
    assert len(preprocess(tmp_path).ids) == sum(OBJECTS.values())
    (place,) = [data_set.place for data_set in catalogue.list_data_sets(tmp_path) if data_set.name == "washington-rgbd"]
    assert place == tmp_path / "raw" / "washington-rgbd" / "unpacked" / "rgbd-dataset"


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "a\\..\\evil.png", "c:evil.png"])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_an_archive_that_leads_outside_is_refused_whole(tmp_path: Path, name: str, suffix: str) -> None:
    archive = pack(tmp_path / f"bad{suffix}", {"rgbd-dataset/fine.png": b"1", name: b"2"})
    with pytest.raises(DataError, match="would lie outside the folder; nothing was unpacked"):
        unpack(archive, tmp_path / "in" / "folder")
    assert {path.name for path in tmp_path.rglob("*")} <= {archive.name, "in"}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_tar_files_are_unpacked_whole_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    import tarfile

    members = {"./rgbd-dataset/a": b"1" * 5000, "rgbd-dataset/b": bytes(range(256)) * 90}
    good = pack(tmp_path / f"good{suffix}", members)
    good.rename(tmp_path / "called-something.zip")  # the content decides, not the name
    assert unpack(tmp_path / "called-something.zip", tmp_path / "folder") == tmp_path / "folder"
    assert (tmp_path / "folder" / "rgbd-dataset" / "b").read_bytes() == members["rgbd-dataset/b"]
    content = (tmp_path / "called-something.zip").read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is not an intact archive"):
        unpack(tmp_path / "cut", tmp_path / "other")
    for kind, words in (
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.FIFOTYPE, "not a file"),
    ):
        with tarfile.open(tmp_path / "special.tar", "w") as tar:
            info = tarfile.TarInfo("rgbd-dataset/x")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(DataError, match=words):
            unpack(tmp_path / "special.tar", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_archives_that_are_damaged_or_hold_links_are_refused(tmp_path: Path) -> None:
    import zipfile

    archive = tmp_path / "links.zip"
    with zipfile.ZipFile(archive, "w") as file:
        link = zipfile.ZipInfo("rgbd-dataset/link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        unpack(archive, tmp_path / "folder")
    good = pack(tmp_path / "good.zip", {"a/b": bytes(5000)})
    (tmp_path / "cut.zip").write_bytes(good.read_bytes()[:3000])
    content = bytearray(good.read_bytes())
    content[2000] ^= 1
    (tmp_path / "flipped.zip").write_bytes(content)
    for name in ("cut.zip", "flipped.zip"):
        with pytest.raises(DataError, match="is not an intact archive"):
            unpack(tmp_path / name, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert unpack(good, tmp_path / "folder") == tmp_path / "folder"
    assert (tmp_path / "folder" / "a" / "b").read_bytes() == bytes(5000)
