"""Runs a fixed set of mmssl's commands with one checkout, and records what every one of them made.

It is for changes that must not change behaviour, such as moving and renaming modules: record the checkout before and
the one after, and compare. About five minutes a recording, on one core.

    python -m tests.golden.record --checkout ../mmssl-before before.json
    python -m tests.golden.record --checkout . after.json
    python -m tests.golden.compare before.json after.json

The script may be newer than the checkout it records: where a setting was renamed (`expected.RENAMED`), it gives the
commands the name that the checkout knows. The numbers depend on the kind of processor and on torch's version, so two
recordings can be compared only if one machine made both with one installation; that is why none is committed.
"""

# ruff: noqa: T201
import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.golden import digests
from tests.golden.expected import RENAMED

MODELS = ("jmvae", "jmvae-kl", "m2", "sdgm", "ssmvae", "sshmvae", "sshmvae-kl")
CO_TRAINED = ("ct-svm", "cotraining")


@dataclass(frozen=True)
class Command:
    """A command of mmssl's, run in the workspace.

    Attributes:
        text: its arguments. Run folders whose names end in a fingerprint cannot be named, so what is used again lies
            in a folder given with `--out`. A renamed setting that is not at its default lies outside of `runs`, as
            pictures and Markdown name it by its name.
        settings: given with `--set`; a renamed one by its old name.
        prints_json: whether its standard output is JSON, and recorded.
    """

    text: str
    settings: Mapping[str, str] = field(default_factory=dict)
    prints_json: bool = False


def _training() -> list[Command]:
    quick, of_sample = "--epochs 2 --iterations 5", "--data golden --split 0 --preset sample --epochs 2"
    commands = []
    for model in MODELS:
        alone = f"train {model} {quick}" + (" --modality x" if model == "sdgm" else "")
        commands += [Command(alone), Command(f"{alone} --seeds 0..2 --out runs/stacks")]
    for model in CO_TRAINED:
        commands += [Command(f"train {model} --epochs 2"), Command(f"train {model} {of_sample}")]
    return [
        *commands,
        Command(f"train sshmvae-kl {of_sample} --iterations 5"),
        Command(f"train sshmvae-kl {quick} --preset recommended --out runs/best"),
        Command(f"train sshmvae {quick} --memory-limit 300kB --out runs/streamed"),
        Command(f"train ssmvae {quick} --out exact --json", {"label": "exact"}, prints_json=True),
        Command("train cotraining --epochs 2 --out runs/more", {"cotraining.additions": "8"}),
    ]


COMMANDS = (
    Command("data sample --categories 4 --objects 3 --views 3"),
    Command("preprocess rgbd --data rgbd-sample --size 64 --workers 1"),
    Command(
        "extract --data rgbd-sample --size 64 --weights random --epochs 1 --labelled 0.5 --split 0..1 --name golden"
    ),
    Command("preprocess hm-digits"),
    Command("preprocess nm-digits"),
    Command("shards inspect shards/golden-split-0.h5 --json", prints_json=True),
    *_training(),
    Command("evaluate runs/best runs/streamed runs/more --json", prints_json=True),
    Command("generate runs/best --from x --to w --out made.npz"),
    Command("generate runs/best runs/streamed --from x --to w --out made.png"),
    Command("runs --json", prints_json=True),
    Command("runs runs/stacks --curves curves.svg"),
    Command("reproduce table2 --data digits --seeds 0 --epochs 1 --set iterations=5 --json", prints_json=True),
    Command("reproduce table5 --data golden --split 0 --preset sample --epochs 1 --json", prints_json=True),
    Command("report runs results --no-models --json report.json --markdown report.md"),
)


class Checkout:
    """A checkout of mmssl, whose commands run with the Python that runs this script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        project = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        self.module = project["scripts"]["mmssl"].partition(":")[0]

    def run(self, arguments: Sequence[str], workspace: Path) -> str:
        """Runs a command in a workspace; returns its standard output. A command that fails ends this script."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("MMSSL_")}
        env |= {"PYTHONPATH": str(self.folder), "MMSSL_ROOT": str(workspace)}
        env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, "-m", self.module, *arguments], cwd=workspace, env=env, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"mmssl {shlex.join(arguments)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout

    def settings(self) -> dict[str, Any]:
        """All settings of a run, by the names that they have in this checkout."""
        with tempfile.TemporaryDirectory() as workspace:
            (planned,) = json.loads(self.run(["train", "cotraining", "--dry-run"], Path(workspace)))
        settings: dict[str, Any] = planned["settings"]
        return settings

    def commit(self) -> str:
        git = ["git", "-C", str(self.folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(git, capture_output=True, text=True)
        return done.stdout.strip() or "unknown"


def known_as(name: str, settings: Mapping[str, Any]) -> str:
    """The name of a setting in a checkout with these settings, given its old one."""
    for setting in (name, RENAMED.get(name, name)):
        value: Any = settings
        for key in setting.split("."):
            value = value.get(key, ...) if isinstance(value, Mapping) else ...
        if value is not ...:
            return setting
    raise KeyError(f"the checkout has no setting {name}, by its old or its new name")


def assignment(name: str, value: str) -> str:
    """What `--set` takes: `label=exact`, or `cotraining={additions=8}` for a setting of a group."""
    group, _, member = name.rpartition(".")
    return f"{group}={{{member}={value}}}" if group else f"{member}={value}"


def record(checkout: Checkout, workspace: Path) -> dict[str, digests.Table]:
    """Runs all commands in an empty workspace; returns a table for each file in it, and for each JSON output."""
    settings = checkout.settings()
    places = {str(workspace): "<workspace>", str(checkout.folder): "<checkout>"}
    outputs: dict[str, digests.Table] = {}
    for command in COMMANDS:
        began = time.monotonic()
        given = [("--set", assignment(known_as(name, settings), value)) for name, value in command.settings.items()]
        printed = checkout.run([*shlex.split(command.text), *(word for pair in given for word in pair)], workspace)
        if command.prints_json:
            outputs[f"stdout:{command.text}"] = digests.of_json(json.loads(printed), places)
        print(f"{time.monotonic() - began:5.1f} s  {command.text}", file=sys.stderr)
    for path in sorted(path for path in workspace.rglob("*") if path.is_file()):
        name = digests.without_places(path.relative_to(workspace).as_posix(), places)
        if name in outputs:
            raise ValueError(f"two files are called {name}, but for their fingerprints")
        outputs[name] = digests.of_file(path, places)
    return outputs


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description="Records what mmssl's commands make with one checkout.")
    parser.add_argument("recording", type=Path, help="the JSON file to write")
    here = Path(__file__).resolve().parents[2]
    parser.add_argument("--checkout", type=Path, default=here, help="its folder; by default the one of this script")
    parser.add_argument("--workspace", type=Path, help="a new folder to work in, which is kept to look into afterwards")
    given = parser.parse_args()
    checkout, began = Checkout(given.checkout), time.monotonic()
    if given.workspace is None:
        with tempfile.TemporaryDirectory() as folder:
            outputs = record(checkout, Path(folder).resolve())
    else:
        given.workspace.mkdir(parents=True)
        outputs = record(checkout, given.workspace.resolve())
    about = {
        "commit": checkout.commit(),
        "cpu": cpu_name(),
        "torch": version("torch"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began),
    }
    content = json.dumps({"about": about, "outputs": outputs}, indent=1, sort_keys=True)
    given.recording.write_text(content + "\n", encoding="utf-8")
    print(f"{given.recording}: {len(outputs)} outputs in {about['seconds']} s", file=sys.stderr)


if __name__ == "__main__":
    main()
