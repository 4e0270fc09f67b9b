"""What the faults have in common: commands that begin at once, undisturbed results, and counts that are printed."""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.zygote import ROOT, Zygote

sys.path.append(str(ROOT / "tests" / "pipeline"))
from pipeline.shards.shard import Modality
from pipeline.shards.writing import write_shard
from tests.support.rgbd_frames import contents, write_frames

FULL = os.environ.get("MMSSL_FAULTS") == "full"
_counts: Counter[str] = Counter()


def count(few: int, full: int) -> int:
    """How many cases a test takes: few, or with MMSSL_FAULTS=full all."""
    return full if FULL else few


@pytest.fixture
def tally() -> Callable[[str, int], None]:
    """Adds to a count that is printed when all is done."""

    def add(what: str, number: int = 1) -> None:
        _counts[what] += number

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _counts:
        terminalreporter.section(f"faults ({'full' if FULL else 'few: MMSSL_FAULTS=full, or `make faults`, for all'})")
        for what, number in sorted(_counts.items()):
            terminalreporter.write_line(f"{number:7,d} {what}")


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


NETWORKS = """
[networks]
"q(a|X)" = "(X-D6BR), D3"
"q(y|a)" = "a-D6BR, DK"
"q(z|a,y)" = "(a-D6BR, y), D2"
"p(a|z,y)" = "(z, y)-D6BR, D3"
"p(x|a)" = "a-D6BR, Dx"
"q(a|x)" = "x-D6BR, D3"
"""


SSMVAE = {
    "q(y|X)": "(X-D16BR)-D16BR, DK",
    "q(z|X,y)": "(y, X-D16BR)-D16BR, D4",
    "p(x|z,y)": "(z, y)-D16BR, Dx",
}


@dataclass(frozen=True)
class Stage:
    """A command, what it starts from, and what it makes.

    Attributes:
        command: its arguments; `{root}` is the workspace.
        result: the folders below the workspace that hold what it makes.
        start: a workspace before it; not to be changed.
        end: the content of `result` after it, undisturbed, without `provenance.json`, which tells the time.
        seconds: it takes, undisturbed but slowed down.
        slow: by so much a step.
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
    found = {}
    for folder in folders:
        found |= {f"{folder}/{name}": content for name, content in contents(root / folder).items()}
    place = str(root.resolve()).encode()
    return {
        name: content.replace(place, b"{root}")
        for name, content in found.items()
        if not name.endswith("provenance.json")
    }


# A stage that makes something of its own belongs here: its name, its command, where its result lies, and how slow.
COMMANDS = {
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
         "--set", "networks={" + ", ".join(f'"{name}" = "{value}"' for name, value in SSMVAE.items()) + "}",
         "--set", "batch_size=512", "--set", "iterations=2", "--device", "cpu",
         "--out", "{root}/tables", "--root", "{root}"), ("runs", "tables"), 0.01,
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def stages(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """Every stage, one after another, undisturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_frames(root)
    (root / "small.toml").write_text(NETWORKS)
    log = root / "log"
    found = {}
    for name, (command, result, slow) in COMMANDS.items():
        start = tmp_path_factory.mktemp(name) / "start"
        shutil.copytree(root, start)
        begun = time.monotonic()
        code = zygote.run(*(part.replace("{root}", str(root)) for part in command), log=log, slow=slow)
        assert code == 0, log.read_text()
        found[name] = Stage(
            name, command, result, start, result_of(root, result), time.monotonic() - begun, slow
        )  # fmt: skip
        assert found[name].end
    return found


@pytest.fixture
def small_shard(tmp_path: Path, make_part: Callable[..., object]) -> Path:
    """A shard of two modalities, with labels marked."""
    path = tmp_path / "small.h5"
    write_shard(
        path,
        dataset="small",
        classes=["cup", "bowl", "hat"],
        modalities=[Modality("x", 4, "bernoulli"), Modality("w", 3, "nonnegative")],
        train=make_part("train", 40, labelled=True),  # type: ignore[arg-type]
        test=make_part("test", 20, seed=1),  # type: ignore[arg-type]
        provenance={"made by": "a test"},
    )
    return path
