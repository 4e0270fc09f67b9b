"""A unit of extraction that fails, here or on a cluster: the other splits get their shards, and it is named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import LocalCluster

from pipeline.features import executors, split_modality
from pipeline.features.split_modality import ExtractionTask, Progress
from pipeline.runtime.errors import DataError, StorageError, TrainingError
from tests.support.extraction import extract


@contextmanager
def scheduler(cluster: bool) -> Iterator[str | None]:
    if not cluster:
        yield None
        return
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as local:
        yield local.scheduler_address


def failing(names: set[str], error: Exception) -> Callable[..., None]:
    compute = split_modality.compute

    def fail(unit: ExtractionTask, stop: Callable[[], None], progress: Progress | None) -> None:
        if unit.name in names:
            raise error
        compute(unit, stop, progress)

    return fail


@pytest.mark.parametrize("cluster", [False, True], ids=["here", "on a cluster"])
@pytest.mark.parametrize("cameras", [["rgb"], ["depth"], ["rgb", "depth"]], ids="+".join)
def test_the_other_splits_are_finished(
    root: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, cluster: bool, cameras: list[str]
) -> None:
    assert undisturbed  # it is made with the network's own `compute`
    monkeypatch.setattr(
        executors,
        "compute",
        failing({f"split 0, {camera}" for camera in cameras}, TrainingError("the loss is not finite")),
    )
    with scheduler(cluster) as address, pytest.raises(TrainingError) as error:
        extract(root, (0, 3), scheduler=address)
    assert error.value.message.startswith("1 failed, the others are done: split 0, ")
    assert "the loss is not finite" in error.value.message
    shards = {path.name for path in (root / "shards").glob("*.h5")}
    assert shards == {"rgbd-32-split-3.h5"}
    assert (root / "shards" / "rgbd-32-split-3.h5").read_bytes() == undisturbed["shards/rgbd-32-split-3.h5"]


@pytest.mark.parametrize("cluster", [False, True], ids=["here", "on a cluster"])
def test_what_concerns_all_ends_all(root: Path, monkeypatch: pytest.MonkeyPatch, cluster: bool) -> None:
    monkeypatch.setattr(executors, "compute", failing({"split 0, rgb"}, StorageError("the disk is full")))
    with scheduler(cluster) as address, pytest.raises(StorageError, match="the disk is full"):
        extract(root, (0, 3), scheduler=address)


@pytest.mark.parametrize("cluster", [False, True], ids=["here", "on a cluster"])
def test_one_split_alone_gives_its_own_error(root: Path, monkeypatch: pytest.MonkeyPatch, cluster: bool) -> None:
    monkeypatch.setattr(executors, "compute", failing({"split 0, rgb"}, DataError("a frame is damaged", "mend it")))
    with scheduler(cluster) as address, pytest.raises(DataError, match=r"^a frame is damaged$") as error:
        extract(root, (0,), scheduler=address)
    assert error.value.hint == "mend it"
