"""What the faults have in common: the stages that are disturbed, undisturbed results, and how many cases are tried."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.rgbd_frames import contents
from tests.support.small_networks import SSMVAE, as_assignment, as_toml

FULL = os.environ.get("MMSSL_FAULTS") == "full"
Tally = Callable[..., None]  # adds to a count that is printed when all is done

SMALL_SETTINGS = as_toml(
    {
        "q(a|X)": "(X-D6BR), D3",
        "q(y|a)": "a-D6BR, DK",
        "q(z|a,y)": "(a-D6BR, y), D2",
        "p(a|z,y)": "(z, y)-D6BR, D3",
        "p(x|a)": "a-D6BR, Dx",
        "q(a|x)": "x-D6BR, D3",
    }
)


def count(few: int, full: int) -> int:
    """How many cases a test takes: few, or with MMSSL_FAULTS=full all."""
    return full if FULL else few


@dataclass(frozen=True)
class Stage:
    """A command, what it starts from, and what it makes.

    Attributes:
        command: its arguments; `{root}` is the workspace.
        result: the folders below the workspace that hold what it makes.
        start: a workspace as it is before the command; not to be changed.
        end: the content of `result` after an undisturbed run, without `provenance.json`, which tells the time.
        seconds: how long an undisturbed run takes, slowed down.
        slow: extra seconds for each step.
    """

    name: str
    command: tuple[str, ...]
    result: tuple[str, ...]
    start: Path
    end: dict[str, bytes]
    seconds: float
    slow: float

    def workspace(self, place: Path) -> Path:
        if place.exists():
            shutil.rmtree(place)
        shutil.copytree(self.start, place, symlinks=True)
        return place

    def arguments(self, root: Path) -> list[str]:
        return [part.replace("{root}", str(root)) for part in self.command]

    def made(self, root: Path) -> dict[str, bytes]:
        return result_of(root, self.result)


def result_of(root: Path, folders: tuple[str, ...]) -> dict[str, bytes]:
    """All files but `provenance.json`, which tells the time; `{root}` stands where a table says where runs lie."""
    files: dict[str, bytes] = {}
    for folder in folders:
        files |= {f"{folder}/{name}": content for name, content in contents(root / folder).items()}
    place = str(root.resolve()).encode()
    return {
        name: content.replace(place, b"{root}")
        for name, content in files.items()
        if not name.endswith("provenance.json")
    }


# A stage that makes something of its own belongs here: its name, its command, where its result lies, and how slow.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], float]] = {
    "preprocess": (("preprocess", "rgbd", "--size", "64", "--workers", "1", "--root", "{root}"), ("images",), 0.01),
    "extract": (
        ("extract", "--size", "64", "--split", "0,3", "--weights", "random", "--labelled", "0.9", "--epochs", "2",
         "--batch-size", "4", "--lr", "1e-3", "--device", "cpu", "--root", "{root}"), ("features", "shards"), 0.01,
    ),
    "train": (
        ("train", "sshmvae-kl", "--data", "{root}/shards/rgbd-64-split-0.h5", "--seeds", "0,1", "--epochs", "4",
         "--batch-size", "4", "--config", "{root}/small.toml", "--iterations", "2", "--device", "cpu",
         "--root", "{root}"), ("runs",), 0.01,
    ),
    "reproduce": (
        ("reproduce", "figure4", "--data", "digits", "--seeds", "0", "--epochs", "2", "--stack", "2",
         "--set", as_assignment(SSMVAE), "--set", "batch_size=512", "--set", "iterations=2", "--device", "cpu",
         "--out", "{root}/tables", "--root", "{root}"), ("runs", "tables"), 0.01,
    ),
}  # fmt: skip
