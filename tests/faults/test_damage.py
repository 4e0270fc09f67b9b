"""Every region of every kind of file flipped, zeroed or cut: found and named, and never read as data."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.features.feature_file import is_complete, read_recipe, read_rows
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.features.split_modality import ExtractionTask
from pipeline.features.weights import Weights
from pipeline.images.store import ImageStore, read_header, verify_object
from pipeline.runtime.errors import DataError
from pipeline.runtime.hdf5 import reading
from pipeline.runtime.tensor_files import read_tensor_file
from pipeline.shards.shard import Shard
from tests.support.faults import Stage, Tally, count


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is opened, and how all of it is verified; both give what they read, or raise."""

    open: Callable[[Path], Any]
    verify: Callable[[Path], Any]


def shard_open(path: Path) -> Any:
    shard = Shard.open(path)
    parts = [(part.labels.tolist(), part.ids.tolist(), part.labelled is not None) for part in (shard.train, shard.test)]
    features = [part.features(m.name).tobytes() for part in (shard.train, shard.test) for m in shard.modalities]
    return (
        shard.dataset,
        shard.split,
        shard.classes,
        shard.modalities,
        shard.digest,
        shard.provenance,
        parts,
        features,
    )


def shard_verify(path: Path) -> Any:
    Shard.open(path).verify()
    return shard_open(path)


def unit_open(path: Path) -> Any:
    with reading(path) as file:
        rows = file["fc1"].shape[0] if isinstance(file.get("fc1"), h5py.Dataset) else 0
    return read_recipe(path), [block.tobytes() for block in read_rows(path, np.ones(rows, np.bool_))]


def unit_verify(path: Path) -> Any:
    """What `mmssl extract` holds a feature file against before it takes it."""
    unit, ids = UNIT
    if not is_complete(path, ids, unit.recipe):
        raise DataError(f"{path}: is made again")
    return unit_open(path)


def store_open(path: Path) -> Any:
    return ImageStore.open(path.parent).index


def state_read(path: Path) -> Any:
    state = read_tensor_file(path)
    tensors = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state.tensors.items()}
    return tensors, state.values


UNIT: list[Any] = []
KINDS = {
    "shard": Kind(shard_open, shard_verify),
    "feature file": Kind(unit_open, unit_verify),
    "image-store file": Kind(read_header, verify_object),
    "image-store index": Kind(store_open, store_open),
    "checkpoint": Kind(state_read, state_read),
    "weights": Kind(state_read, state_read),
}


@pytest.fixture(scope="module")
def files(stages: dict[str, Stage]) -> dict[str, bytes]:
    ends = {name: stage.end for name, stage in stages.items()}
    weights = next(content for name, content in ends["train"].items() if name.endswith("weights.safetensors"))
    return {
        "shard": ends["extract"]["shards/rgbd-64-split-0.h5"],
        "feature file": ends["extract"]["features/rgbd-64/split-0-rgb.h5"],
        "image-store file": ends["preprocess"]["images/rgbd-64/cup_4.h5"],
        "image-store index": ends["preprocess"]["images/rgbd-64/index.json"],
        "weights": weights,
    }


def regions(kind: str, content: bytes, path: Path) -> dict[str, list[int]]:
    """Every byte of a file by the region it lies in."""
    by_region: dict[str, list[int]] = {"tail": list(range(len(content) - 32, len(content)))}
    if kind == "image-store index":
        return by_region | {"content": list(range(len(content)))}
    if kind in ("checkpoint", "weights"):
        head = 8 + int.from_bytes(content[:8], "little")
        places = {"header's length": (0, 8), "header": (8, head), "tensors": (head, len(content))}
        return by_region | {region: list(range(*ends)) for region, ends in places.items()}
    chunks, sums = set(), set()
    path.write_bytes(content)
    with h5py.File(path, locking=False) as file:
        for dataset in datasets(file):
            for k in range(dataset.id.get_num_chunks()):
                info = dataset.id.get_chunk_info(k)
                chunks |= set(range(info.byte_offset, info.byte_offset + info.size - 4))
                sums |= set(range(info.byte_offset + info.size - 4, info.byte_offset + info.size))
    return by_region | {
        "header": list(range(48)), "chunks": sorted(chunks), "checksums": sorted(sums),
        "metadata": [place for place in range(48, len(content)) if place not in chunks and place not in sums],
    }  # fmt: skip


def datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    for member in group.values():
        if isinstance(member, h5py.Dataset):
            yield member
        else:
            yield from datasets(member)


def damaged(content: bytes, place: int, how: str, chance: random.Random) -> bytes:
    if how == "cut":
        return content[:place]
    bad = bytearray(content)
    if how == "flipped":
        bad[place] ^= 1 << chance.randrange(8)
    else:
        bad[place : place + 16] = chance.randbytes(len(bad[place : place + 16]))
    return bytes(bad)


def found_by(kind: Kind, path: Path, good: Any) -> str:
    """Who finds the damage: `open`, only `verify`, or nobody for nobody uses that byte."""
    try:
        opened = kind.open(path)
    except DataError as error:
        return "open" if str(path) in error.message else f"a sentence that does not name it: {error}"
    try:
        verified = kind.verify(path)
    except DataError as error:
        return "verify" if str(path) in error.message else f"a sentence that does not name it: {error}"
    assert opened == verified == good, "damage was read as data"
    return "unused"


@pytest.mark.parametrize("name", KINDS)
def test_damage_anywhere_is_found_and_named(
    name: str, files: dict[str, bytes], checkpoint: bytes, tmp_path: Path, tally: Tally,
    unit: Any, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("CRITICAL")
    UNIT[:] = unit
    content = checkpoint if name == "checkpoint" else files[name]
    path = tmp_path / {"image-store index": "index.json"}.get(name, "file")
    chance, kind = random.Random(name), KINDS[name]
    places = regions(name, content, path)
    path.write_bytes(content)
    good = kind.verify(path)
    assert kind.open(path) == good or name == "image-store file"
    wanted = count(4, 25)
    unused: dict[str, int] = {}
    for region, inside in places.items():
        seen = 0
        while seen < wanted:
            bad = damaged(content, chance.choice(inside), ("flipped", "overwritten", "cut")[seen % 3], chance)
            if bad == content:
                continue
            path.write_bytes(bad)
            detector = found_by(kind, path, good)
            if detector == "unused":
                unused[region] = unused.get(region, 0) + 1
                assert unused[region] < 4 * wanted, region
                tally(f"corruptions of a {name}'s bytes that nothing uses: read as it was written")
                continue
            assert detector in ("open", "verify"), detector
            seen += 1
            tally(f"corruptions of a {name} found by {detector}, and named")
    assert set(unused) <= {"metadata", "tail"}


@pytest.fixture
def unit(stages: dict[str, Stage], tmp_path: Path) -> Any:
    """A unit whose file is the one that was made, of which only path and recipe count; and the store's ids."""
    path = tmp_path / "unit.h5"
    path.write_bytes(stages["extract"].end["features/rgbd-64/split-0-rgb.h5"])
    recipe, settings = read_recipe(path), FeatureSettings()
    task = ExtractionTask(
        tmp_path, path, 0, "rgb", 3, (), np.zeros(0, np.int64), settings, Weights("random"), "cpu", recipe
    )
    with h5py.File(path) as file:
        return task, file["id"].asstr()[...].tolist()


@pytest.fixture(scope="module")
def checkpoint(stages: dict[str, Stage], zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint that a stopped training left."""
    stage = stages["train"]
    root = stage.workspace(tmp_path_factory.mktemp("checkpoint") / "root")
    process = zygote.start(*stage.arguments(root), log=root / "log", slow=stage.slow)
    deadline = time.monotonic() + 60
    while not (left := list(root.glob("runs/*/checkpoint.safetensors"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process, signal.SIGTERM)
    assert zygote.wait(process) == 75
    return left[0].read_bytes()
