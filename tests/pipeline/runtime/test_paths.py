"""Home folders in paths that no shell has expanded: in options, in settings files, in the environment."""

from pathlib import Path

import pytest

from commands.app import _expanded
from pipeline.datasets import manifests
from pipeline.datasets.locations import raw_folder
from pipeline.datasets.resolve import shard_paths
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.paths import expanded, shared_data
from tests.support.small_shards import small_shard


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_home_folder_is_expanded_and_what_is_none_is_not_made_one(home: Path) -> None:
    assert expanded("~") == expanded(Path("~/")) == home
    assert expanded("~/a/b.h5") == home / "a" / "b.h5"
    assert expanded("a/~/b") == Path("a/~/b")
    assert expanded("~nobody-of-that-name.h5") == Path("~nobody-of-that-name.h5")  # a file's own name
    with pytest.raises(UsageError, match=r"~nobody-of-that-name/ws: it is not known where"):
        expanded("~nobody-of-that-name/ws")


def test_options_are_expanded_whatever_they_hold(home: Path) -> None:
    given = [Path("~/a"), [Path("~/b"), Path("c")], "~/d.h5", "~", "hm-digits", 3, None]
    assert [_expanded(value) for value in given] == [
        home / "a", [home / "b", Path("c")], str(home / "d.h5"), "~", "hm-digits", 3, None
    ]  # fmt: skip


def test_shared_data_and_shards(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_data() is None
    monkeypatch.setenv("MMSSL_DATA", "~/data")
    assert shared_data() == home / "data"
    assert manifests.places(tmp_path / "raw", "mnist") == [tmp_path / "raw" / "mnist", home / "data" / "mnist"]
    with pytest.raises(DataError, match=f"{home}/data/rgbd"):
        raw_folder("rgbd", tmp_path)
    home.mkdir()
    small_shard(home / "mine.h5")
    assert shard_paths("~/mine.h5", (), tmp_path) == [home / "mine.h5"]
