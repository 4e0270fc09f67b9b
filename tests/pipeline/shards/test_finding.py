"""A shard is known by its digest, and found wherever the workspace that it lies in has gone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from pipeline.runtime.errors import DataError
from pipeline.shards.finding import digest_of, locate_shard
from tests.support.small_shards import small_shard


@pytest.fixture
def digest(tmp_path: Path) -> str:
    """Of a shard in `ws`, which also holds a run's folder."""
    (tmp_path / "ws" / "runs" / "run").mkdir(parents=True)
    (tmp_path / "ws" / "shards").mkdir()
    return small_shard(tmp_path / "ws" / "shards" / "mine.h5").digest


def move(folder: Path) -> None:
    (folder / "ws").rename(folder / "new")


def copy(folder: Path) -> None:
    shutil.copytree(folder / "ws", folder / "new")
    shutil.rmtree(folder / "ws")


def mount(folder: Path) -> None:
    (folder / "ws").rename(folder / "store")
    (folder / "new").symlink_to(folder / "store")


def link_runs(folder: Path) -> None:
    move(folder)
    (folder / "new" / "runs").rename(folder / "runs on another disk")
    (folder / "new" / "runs").symlink_to(folder / "runs on another disk")


def rename(folder: Path) -> None:
    move(folder)
    (folder / "new" / "shards" / "mine.h5").rename(folder / "new" / "shards" / "yours.hdf5")


def group_runs(folder: Path) -> None:
    move(folder)
    (folder / "new" / "runs" / "run").rename(folder / "new" / "run")
    (folder / "new" / "runs" / "of may" / "first").mkdir(parents=True)
    (folder / "new" / "run").rename(folder / "new" / "runs" / "of may" / "first" / "run")


def beside_the_runs(folder: Path) -> None:
    move(folder)
    (folder / "new" / "shards" / "mine.h5").rename(folder / "new" / "runs" / "mine.h5")


def replace_by_another(folder: Path) -> None:
    shutil.copytree(folder / "ws", folder / "new")
    small_shard(folder / "ws" / "shards" / "mine.h5", dataset="other")


@pytest.mark.parametrize(
    "change", [move, copy, mount, link_runs, rename, group_runs, beside_the_runs, replace_by_another]
)
def test_it_is_found_in_the_workspace_that_holds_the_run(
    change: Callable[[Path], None], digest: str, tmp_path: Path
) -> None:
    recorded = tmp_path / "ws" / "shards" / "mine.h5"
    change(tmp_path)
    (home,) = {path.parent / "run" for path in (tmp_path / "new").rglob("run")} or {tmp_path / "new" / "runs" / "run"}
    assert digest_of(locate_shard(digest, recorded, home)) == digest


def test_it_is_found_from_a_relative_folder(digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move(tmp_path)
    monkeypatch.chdir(tmp_path / "new" / "runs")
    assert digest_of(locate_shard(digest, tmp_path / "ws" / "shards" / "mine.h5", Path("run"))) == digest


@pytest.mark.parametrize("place", ["elsewhere/mine.h5", "elsewhere"])
def test_it_is_found_where_a_person_says(place: str, digest: str, tmp_path: Path) -> None:
    recorded, home = tmp_path / "ws" / "shards" / "mine.h5", tmp_path / "ws" / "runs" / "run"
    (tmp_path / "elsewhere").mkdir()
    recorded.rename(tmp_path / "elsewhere" / "mine.h5")
    with pytest.raises(DataError, match="no such file") as caught:
        locate_shard(digest, recorded, home)
    assert "--data FILE.h5" in str(caught.value.hint)
    assert str(recorded) in caught.value.message
    assert locate_shard(digest, recorded, home, [tmp_path / place]) == tmp_path / "elsewhere" / "mine.h5"


def test_one_that_records_no_digest_is_known_by_its_content(digest: str, tmp_path: Path) -> None:
    recorded = tmp_path / "ws" / "shards" / "mine.h5"
    with h5py.File(recorded, "r+") as file:
        del file.attrs["digest"]
    move(tmp_path)
    found = locate_shard(digest, recorded, tmp_path / "new" / "runs" / "run")
    assert found == tmp_path / "new" / "shards" / "mine.h5"


def test_another_shard_in_its_place_is_said_to_be_another(digest: str, tmp_path: Path) -> None:
    recorded, home = tmp_path / "ws" / "shards" / "mine.h5", tmp_path / "ws" / "runs" / "run"
    small_shard(recorded, dataset="other")
    with pytest.raises(DataError, match=r"mine\.h5 is not the shard that .*run was trained on: its content differs"):
        locate_shard(digest, recorded, home)
    recorded.write_bytes(recorded.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"mine\.h5: .*damaged"):
        locate_shard(digest, recorded, home)
