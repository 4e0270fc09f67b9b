"""Bad files and bad commands by the thousand: each is refused in a sentence or read, quickly and in bounded memory.

`python -m tests.support.fuzz FOLDER COUNT SEED` prints what it did as JSON. It is a separate process:
what crashes it, or fills the memory, is then seen from outside, and the input that did it lies in FOLDER.
"""

import contextlib
import io
import json
import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image

import cli
from commands import messages
from commands.settings_from_options import settings_of
from pipeline.datasets import archives, washington
from pipeline.datasets.digits import build
from pipeline.datasets.manifests import Manifest
from pipeline.datasets.washington_splits import read_trials
from pipeline.features.feature_file import read_recipe
from pipeline.images.store import ImageSettings, ImageStore, ObjectImages, StoreIndex, verify_object, write_object
from pipeline.runtime.errors import MmsslError
from pipeline.runtime.tensor_files import TensorFile, read_tensor_file, write_tensor_file
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from tests.support.paths import ROOT
from tests.support.small_bundle import seeds as bundle_seeds
from trainer.baselines.references import read_references
from trainer.reporting.comparison import read_result
from trainer.settings.presets import preset_values
from trainer.settings.run_settings import build as settings_from
from trainer.settings.sources import read_toml
from trainer.training.run_folder import Run
from trainer.training.run_listing import FORMAT

SECONDS = 10  # an input that takes longer hangs
ROOM = 6 * 2**30  # of address space: an allocation beyond it fails as it would where memory ends

Read = Callable[[Path], object]


class Hang(BaseException):
    """Not an Exception: no reader catches it."""


# --- good files, and what reads them ---------------------------------------------------------------------------------


def seeds(folder: Path) -> list[tuple[str, bytes, str, Read]]:
    """(kind, a good file, its name, its reader)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    def part(name: str, rows: int) -> PartData:
        labels = np.arange(rows) % 3
        features = {"x": rng.random((rows, 4), np.float32), "w": rng.random((rows, 3), np.float32)}
        return PartData(features, labels, [f"{name}-{k}" for k in range(rows)], labels > 0 if name == "train" else None)

    write_shard(
        folder / "shard.h5", dataset="small", classes=["a", "b", "c"], split=1, provenance={"recipe": {"a": 1}},
        modalities=[Modality("x", 4, "bernoulli"), Modality("w", 3, "nonnegative")],
        train=part("train", 12), test=part("test", 6),
    )  # fmt: skip
    pixels = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    images = ObjectImages("cup_1", ("cup_1_1_1", "cup_1_1_2", "cup_1_1_3"), pixels, pixels, {}, {})
    header = write_object(folder / "object.h5", images, ImageSettings(size=32), "stamp")
    write_tensor_file(
        folder / "state.safetensors", TensorFile({"a": torch.ones(3), "b": torch.zeros(2, 2)}, {"step": 3})
    )
    ImageStore.finish(folder, StoreIndex(
        dataset="rgbd", source={"manifest": "x"}, settings=ImageSettings(size=32), versions=({"numpy": "2"},),
        trials=({"cup": 1},), objects={"cup_1": {"ids": header.ids, "digest": header.digest}},
        skipped={}, flawed={},
    ))  # fmt: skip
    settings = settings_from(preset_values("digits", "sshmvae-kl") | {"model": "sshmvae-kl", "data": "hm-digits"})
    toml = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.model_dump().items()
                   if isinstance(value, int | float | str))  # fmt: skip
    toml += "[networks]\n" + "".join(f'"{key}" = "{value}"\n' for key, value in settings.networks.items())
    as_written = json.dumps({"format": FORMAT, **settings.model_dump(mode="json")})
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("rgbd-dataset/cup/cup_1/cup_1_1_1_crop.png", "rgbd-dataset/readme", "x/y"):
            archive.writestr(name, b"content " * 50)
    Image.fromarray(pixels[0, :20, :20]).save(folder / "rgb.png")
    Image.fromarray(rng.integers(0, 2000, (20, 20), np.uint16)).save(folder / "depth.png")
    (folder / "loc.txt").write_text("268,211\n")
    manifest = next((ROOT / "data_manifests").glob("mnist.toml")).read_bytes()
    metrics = b"epoch,J,accuracy x\n1,-3.5,0.5\n2,-2.5,0.6\n"
    result = {
        "elbo": -3.0,
        "scores": [{"given": "x", "completion": "zeros", "accuracy": 0.5, "nll": 1.0, "ece": 0.1, "examples": 6}],
    }
    reference = {"logistic-regression": {"scores": result["scores"], "left_out": None}}
    outcome = {"name": "table", "title": "a table", "notes": ["reduced"], "settings": {"a": 1}}

    def in_run(read: Callable[[Run], object]) -> Read:
        return lambda path: read(Run(path.parent, settings))

    def frame(path: Path) -> object:
        rgbd_frame = washington.Frame("cup", 1, 1, 1, folder, has_mask=False)
        names = {rgbd_frame.rgb: "rgb.png", rgbd_frame.depth: "depth.png", rgbd_frame.loc: "loc.txt"}
        for place, name in names.items():
            if place is not None:
                place.write_bytes(path.read_bytes() if path.name == name else good(name))
        return washington.read_frame(rgbd_frame)

    def verify_shard(path: Path) -> object:
        shard = Shard.open(path)
        shard.verify()
        return shard

    def unpack(path: Path) -> object:
        target = folder / "unpacked" / "here"
        try:
            return archives.unpack(path, target)
        finally:
            clear(folder / "unpacked")

    def good(name: str) -> bytes:
        return (folder / name).read_bytes()

    return [
        ("shard", good("shard.h5"), "shard.h5", verify_shard),
        ("image-store file", good("object.h5"), "object.h5", verify_object),
        ("feature file", good("object.h5"), "unit.h5", read_recipe),
        ("state", good("state.safetensors"), "state.safetensors", read_tensor_file),
        ("image-store index", good("index.json"), "index.json", lambda path: ImageStore.open(path.parent)),
        ("manifest", manifest, "manifest.toml", lambda path: settings_of(Manifest, **read_toml(path))),
        ("settings in TOML", toml.encode(), "settings.toml", lambda path: settings_from(read_toml(path))),
        ("settings in JSON", as_written.encode(), "settings.json", lambda path: Run.open(path.parent)),
        ("metrics", metrics, "metrics.csv", in_run(Run.metrics)),
        ("result", json.dumps(result).encode(), "result.json", in_run(Run.result)),
        ("provenance", b'{"shard": "x", "a": [1, 2]}', "provenance.json", in_run(Run.provenance)),
        ("outcome", json.dumps(outcome).encode(), "outcome.json", read_result),
        ("references", json.dumps(reference).encode(), "reference.json", in_run(read_references)),
        ("archive", good("a.zip"), "a.zip", unpack),
        ("RGB frame", good("rgb.png"), "rgb.png", frame),
        ("depth frame", good("depth.png"), "depth.png", frame),
        ("corner", good("loc.txt"), "loc.txt", frame),
        ("trials", b"****** trial 1 ******\ncup_1\nbell_pepper_2\n****** trial 2 ******\ncup_3\n", "trials.txt",
         read_trials),
    ]  # fmt: skip


def clear(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


# --- bad ones --------------------------------------------------------------------------------------------------------

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WORDS = (
    b"null", b"-1", b"1e999", b"NaN", b"\\ud800", b"\xff\xfe", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"../" * 9,
    b"\x00", b"/etc/passwd", b"a = [" * 2000, b'""', b"true",
)  # fmt: skip


def mutate(good: bytes, chance: random.Random) -> bytes:
    bad = bytearray(good)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(bad) + 1)
        kind = chance.randrange(9)
        if kind == 0 and bad:
            bad[min(place, len(bad) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            bad[place : place + 8] = chance.choice(_NUMBERS).to_bytes(8, chance.choice(("little", "big")))
        elif kind == 2:
            bad[place : place + 4] = (chance.choice(_NUMBERS) & 0xFFFFFFFF).to_bytes(
                4, chance.choice(("little", "big"))
            )
        elif kind == 3:
            del bad[place:]
        elif kind == 4:
            del bad[place : place + chance.randrange(1, 64)]
        elif kind == 5:
            start = chance.randrange(len(bad) + 1)
            bad[place:place] = bad[start : start + chance.randrange(256)]
        elif kind == 6:
            bad[place : place + chance.randrange(32)] = chance.choice(_WORDS)
        elif kind == 7:
            bad[place : place + 16] = chance.randbytes(16)
        else:
            digits = [k for k, byte in enumerate(bad) if 48 <= byte < 58]
            if digits:
                bad[chance.choice(digits)] = 48 + chance.randrange(10)
    return bytes(bad) if chance.random() > 0.01 else chance.randbytes(chance.randrange(2000))


def arguments(folder: Path, chance: random.Random) -> list[str]:
    """A command that does little or no work even if it is valid: everything is small, absent, or only looked at."""
    words = [
        "", "-1", "0", "1e309", "nan", "x" * 3000, "\ud800", "\x00", "../..", "0..4", "4..0", "0,0", "0..9999999999",
        "[bold]", "é", "all", "shard", "--", "-", "None", str(folder), str(folder / "none.h5"), str(folder / "bad"),
    ]  # fmt: skip
    options = [
        "--data", "--labels", "--seeds", "--split", "--alpha", "--beta", "--epochs", "--batch-size", "--lr",
        "--label-estimator", "--modality", "--preset", "--iterations", "--set", "--device", "--out",
        "--config", "--stack", "--root", "--size", "--depth-encoding", "--weights", "--name", "--scheduler",
        "--workers", "--rotation", "--noise", "--seed", "--curves", "--json", "--strict", "--help", "--unknown", "-q",
        "--rgb", "--depth", "--target-accuracy", "--abstain-below",
    ]  # fmt: skip
    starts = [
        ["train", "sshmvae-kl", "--dry-run"], ["train", "--dry-run"], ["shards", "inspect"], ["shards", "verify"],
        ["runs"], ["evaluate"], ["export"], ["predict"],
        ["predict", str(folder / "good bundle" / "model")],
        ["extract", "--root", str(folder / "nowhere")], ["data", "verify"], ["data", "nothing"],
        ["preprocess", "rgbd", "--root", str(folder / "nowhere")], ["preprocess"], ["nonsense"], [], ["--version"],
    ]  # fmt: skip
    given = list(chance.choice(starts))
    for _ in range(chance.randrange(5)):
        given += [chance.choice(options)] * (chance.random() < 0.8) + [chance.choice(words)] * (chance.random() < 0.8)
    if "--dry-run" not in given and given[:1] == ["train"]:
        given.append("--dry-run")
    return given


# --- trying them -----------------------------------------------------------------------------------------------------


def attempt(call: Callable[[], object]) -> str:
    """`read`, `refused`, or what went wrong."""

    def hang(_: int, __: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        call()
    except MmsslError as error:
        flat = error.message.replace("\n", " ").strip()
        return "refused" if flat and len(error.message.splitlines()) <= 2 else f"no sentence: {error.message!r}"
    except Hang:
        return "hang"
    except Exception:
        return "traceback: " + traceback.format_exc()
    finally:
        signal.alarm(0)
    return "read"


def command(given: Sequence[str]) -> None:
    sys.argv = ["mmssl", *given]
    output = io.StringIO()
    messages.err.file = messages.out.file = output
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            cli.main()
    except SystemExit as end:
        if (end.code or 0) not in (0, 1, 2):
            raise AssertionError(f"exit code {end.code} of {given}: {output.getvalue()}") from None
    if "Traceback" in output.getvalue():
        raise AssertionError(output.getvalue())


def main(folder: Path, total: int, seed: int) -> dict[str, Any]:
    known = [*seeds(folder / "good"), *bundle_seeds(folder / "good bundle")]
    build("hm-digits", folder / "workspace" / "shards", folder / "workspace" / "raw")
    os.environ["MMSSL_ROOT"] = str(folder / "workspace")
    os.environ["COLUMNS"] = "200"
    os.chdir(folder)
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    counts: Counter[str] = Counter()
    faults: list[str] = []
    slowest, before = 0.0, 0
    call: Callable[[], object]
    for number in range(total):
        chance = random.Random(f"{seed} {number}")
        if number % 5 == 0:
            given = arguments(folder, chance)
            (folder / "last").write_text(repr(given))
            kind, call = "command", partial(command, given)
        else:
            kind, good, name, read = known[number % len(known)]
            path = folder / "bad" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(mutate(good, chance))
            (folder / "last").write_text(f"{kind} {number}")
            call = partial(read, path)
        begun = time.monotonic()
        result = attempt(call)
        slowest = max(slowest, time.monotonic() - begun)
        ending = result if result in ("read", "refused") else "FAULT"
        counts[f"{kind}: {ending}"] += 1
        if ending == "FAULT":
            faults.append(f"{kind}, number {number}: {given if kind == 'command' else ''} {result}")
            if kind != "command":
                (folder / f"fault-{number}-{path.name}").write_bytes(path.read_bytes())
        if number == total // 4:
            before = resident()
    grown = resident() - before
    return {"counts": dict(sorted(counts.items())), "faults": faults, "slowest": slowest, "grown": grown}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))) + "\n")
