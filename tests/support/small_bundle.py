"""A small bundle, and readers that make its digests right again before they read: what a forger would do."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from commands.prediction_sources import Cameras, read_rows
from pipeline.runtime.arrays import read_npz
from tests.support.bundles import reseal
from tests.support.training import CPU, make_settings, make_shard, run_stack
from trainer.inference.bundle import CARD, CHECK, WEIGHTS, Bundle, verify
from trainer.inference.bundle_reading import read_bundle
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather

FILES = (CARD, WEIGHTS, CHECK)
ROWS = b"id,x.0,x.1,w.0,label\na,0.5,1,2.5,cup\nb,,,1,\n"


def make_bundle(folder: Path) -> Path:
    """A bundle of one short run."""
    shard = make_shard(folder / "shard.h5")
    (run,) = run_stack(folder / "runs", [make_settings("sshmvae-kl", shard, epochs=1)], [shard])
    write_bundle(gather([run]), folder / "model")
    return folder / "model"


def open_bundle(folder: Path) -> Bundle:
    """Reads a bundle as `mmssl predict` does before its first row."""
    bundle = read_bundle(folder)
    verify(bundle, folder, bundle.predictor(CPU, str(folder)))
    return bundle


def seeds(folder: Path) -> list[tuple[str, bytes, str, Callable[[Path], object]]]:
    """(kind, a good file, its name, its reader), for fuzzing."""
    good = make_bundle(folder)

    def forged(path: Path) -> object:
        place = folder / "forged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(good, place)
        shutil.copyfile(path, place / path.name)
        with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
            reseal(place)  # unless it is no card any more
        return open_bundle(place)

    kinds = [(f"bundle's {name}", (good / name).read_bytes(), name, forged) for name in FILES]
    return [
        *kinds,
        ("arrays", (good / CHECK).read_bytes(), "rows.npz", read_npz),
        ("rows in CSV", ROWS, "rows.csv", lambda path: list(read_rows(path, ("x", "w"), Cameras(), {}))),
    ]
