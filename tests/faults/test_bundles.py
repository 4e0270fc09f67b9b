"""Bundles from anyone: damage is found and named, and what a card declares takes no memory that no file holds."""

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.errors import DataError
from tests.support.bundles import reseal
from tests.support.faults import Tally, count
from tests.support.paths import ROOT
from tests.support.small_bundle import FILES, make_bundle, open_bundle


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("name", FILES)
def test_damage_anywhere_is_found_and_named(name: str, good: Path, tmp_path: Path, tally: Tally) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "model"))
    content, chance = (good / name).read_bytes(), random.Random(name)
    for number in range(count(12, 75)):
        place, bad = chance.randrange(len(content)), bytearray(content)
        if number % 3 == 0:
            bad[place] ^= 1 << chance.randrange(8)
        elif number % 3 == 1:
            bad[place : place + 16] = chance.randbytes(len(bad[place : place + 16]))
        else:
            del bad[place:]
        (folder / name).write_bytes(bad)
        if json_of(name, bytes(bad)) == json_of(name, content):
            continue  # white space
        with pytest.raises(DataError, match=re.escape(str(folder))):
            open_bundle(folder)
        tally(f"corruptions of a bundle's {name} found when it is opened, and named")


def json_of(name: str, content: bytes) -> object:
    """What a card says; the bytes themselves of any other file."""
    try:
        return json.loads(content) if name == "model.json" else content
    except ValueError:
        return content


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a wide modality": lambda c: c["modalities"][0].update(width=2**40),
    "a wide layer": lambda c: c["settings"]["networks"].update({"q(y|a)": "a-D99999999999BR, DK"}),
    "many replicas": lambda c: c.update(seeds=list(range(100_000))),
    "many classes": lambda c: c.update(classes=[f"class {k}" for k in range(100_000)]),
    "many networks": lambda c: c["settings"]["networks"].update({f"q({k}|a)": "a, D9" for k in range(10_000)}),
    "a long network": lambda c: c["settings"]["networks"].update({"q(y|a)": "a" + "-D9BR" * 100_000 + ", DK"}),
    "a deep network": lambda c: c["settings"]["networks"].update({"q(y|a)": "(" * 400 + "a" + ")" * 400 + ", DK"}),
    "many modalities": lambda c: c.update(modalities=[c["modalities"][0] | {"name": f"m{k}"} for k in range(20_000)]),
}
OPEN_ALL = """
import resource, sys
from pathlib import Path
from pipeline.runtime.errors import DataError
from tests.support.small_bundle import open_bundle

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    try:
        open_bundle(path)
    except DataError as error:
        print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), str(path) in error.message)
    else:
        print("was read")
"""


def test_cards_that_lie_take_no_memory(good: Path, tmp_path: Path) -> None:
    """In a process of its own with little address space, which would fail, or be seen to grow."""
    folders = []
    for k, change in enumerate(LIES.values()):
        folders.append(Path(shutil.copytree(good, tmp_path / str(k))))
        reseal(folders[-1], change)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OPEN_ALL, *map(str, folders)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for lie, line in zip(LIES, done.stdout.splitlines(), strict=True):
        grown, _, named = line.partition(" ")
        assert named == "True", f"{lie}: {line}"
        assert int(grown) < 2**29, lie
