"""What the faults have in common: commands that begin at once, and undisturbed results."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.shards.shard import Modality
from pipeline.shards.writing import write_shard
from tests.support.faults import COMMANDS, SMALL_SETTINGS, Stage, result_of
from tests.support.rgbd_frames import write_frames
from tests.support.small_shards import part_data
from tests.support.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="session")
def stages(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """Every stage, one after another, undisturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_frames(root)
    (root / "small.toml").write_text(SMALL_SETTINGS)
    log = root / "log"
    by_name = {}
    for name, (command, result, slow) in COMMANDS.items():
        start = tmp_path_factory.mktemp(name) / "start"
        shutil.copytree(root, start)
        begun = time.monotonic()
        code = zygote.run(*(part.replace("{root}", str(root)) for part in command), log=log, slow=slow)
        assert code == 0, log.read_text()
        by_name[name] = Stage(name, command, result, start, result_of(root, result), time.monotonic() - begun, slow)
        assert by_name[name].end
    return by_name


@pytest.fixture
def small_shard(tmp_path: Path) -> Path:
    """A shard of two modalities, with labels marked."""
    path = tmp_path / "small.h5"
    write_shard(
        path,
        dataset="small",
        classes=["cup", "bowl", "hat"],
        modalities=[Modality("x", 4, "bernoulli"), Modality("w", 3, "nonnegative")],
        train=part_data("train", 40, labelled=True),
        test=part_data("test", 20, seed=1),
        provenance={"made by": "a test"},
    )
    return path
