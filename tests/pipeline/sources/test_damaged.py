"""Files with changed or missing bytes: read all the same, or one sentence; never another error."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.datasets.pictures import picture_facts, read_colour, read_depth
from pipeline.runtime.errors import MmsslError
from pipeline.sources.parts import divide
from pipeline.sources.reading import read_source
from tests.support.own_pictures import colour, depth, save

TIMES = 40
X = np.random.default_rng(0).normal(size=(6, 3))
LABELS = np.array(["a", "b"] * 3)


def write_text(path: Path, text: str) -> None:
    path.write_text(text)


SOURCES: dict[str, Callable[[Path], object]] = {
    "a.npz": lambda path: np.savez(path, x=X, label=LABELS),
    "b.npz": lambda path: np.savez_compressed(path, x=X, label=LABELS),
    "x.npy": lambda path: np.save(path, X),
    "vectors.csv": partial(write_text, text="x.0,x.1,label,group\n1,2,a,g\n3,4,b,h\n"),
    "metadata.csv": partial(write_text, text="rgb_file_name,label,split\nx.png,cup,train\n"),
}
PICTURES: dict[str, NDArray[Any]] = {
    **{f"colour{suffix}": colour(1) for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp")},
    **{f"depth{suffix}": depth(1) for suffix in (".png", ".tif", ".npy")},
    "metres.tif": depth(1).astype(np.float32),
}


def damaged(content: bytes, seed: int) -> bytes:
    """Some bytes changed, mostly near the beginning, or the end cut off."""
    rng = random.Random(seed)
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    spoilt = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        spoilt[rng.randrange(min(len(spoilt), rng.choice([40, 200, len(spoilt)])))] = rng.randrange(256)
    return bytes(spoilt)


def sentence_of(read: Callable[[], object]) -> str:
    """What the error says, if there is one."""
    try:
        read()
    except MmsslError as error:
        return error.message
    return ""


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_sources(name: str, tmp_path: Path) -> None:
    SOURCES[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for seed in range(TIMES):
        (tmp_path / name).write_bytes(damaged(content, seed))
        assert "\n" not in sentence_of(lambda: divide(read_source(tmp_path / name), None, 0))


@pytest.mark.parametrize("name", PICTURES)
def test_damaged_pictures(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, PICTURES[name])
    content = path.read_bytes()
    for seed in range(TIMES):
        path.write_bytes(damaged(content, seed))
        for read in (read_colour, read_depth, picture_facts):
            assert "\n" not in sentence_of(partial(read, path))
