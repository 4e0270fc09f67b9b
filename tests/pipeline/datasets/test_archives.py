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
    import zipfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_an_archive_placed_by_hand_is_taken_and_what_deviates_is_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_frames(tmp_path / "elsewhere")
    members = {f"rgbd-dataset/{name}": content for name, content in contents(folder).items()}
    pack(tmp_path / "raw" / "rgbd-dataset_eval.zip", members)
    messages = catalogue.fetch("washington-rgbd", tmp_path)
    assert "advisory" in caplog.text  # the checksum is not the one on record
    assert "category apple is missing" in messages
    assert "category hat is not one of the data set's" in messages
    assert catalogue.verify("washington-rgbd", tmp_path) == messages
    assert len(preprocess(tmp_path).ids) == sum(OBJECTS.values())
    (place,) = [data_set.place for data_set in catalogue.list_data_sets(tmp_path) if data_set.name == "washington-rgbd"]
    assert place == tmp_path / "raw" / "washington-rgbd" / "unpacked" / "rgbd-dataset"


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "a\\..\\evil.png", "c:evil.png"])
def test_an_archive_that_leads_outside_is_refused_whole(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / "bad.zip", {"rgbd-dataset/fine.png": b"1", name: b"2"})
    with pytest.raises(DataError, match="would lie outside the folder; nothing was unpacked"):
        unpack(archive, tmp_path / "in" / "folder")
    assert {path.name for path in tmp_path.rglob("*")} <= {"bad.zip", "in"}


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
        with pytest.raises(DataError, match="is not an intact zip file"):
            unpack(tmp_path / name, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert unpack(good, tmp_path / "folder") == tmp_path / "folder"
    assert (tmp_path / "folder" / "a" / "b").read_bytes() == bytes(5000)
