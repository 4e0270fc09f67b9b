"""Finished runs and a bundle of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.shards.schema import Features, Scaling
from pipeline.shards.shard import Shard
from tests.support.tiny_models import ALIKE
from tests.support.training import V, W, X, clusters, make_settings, make_shard, run_stack, turns
from trainer.inference.bundle import Bundle
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather
from trainer.training.run_folder import Run

MODALITIES = {"m2": ALIKE, "sdgm": (X,)}
SAMPLES = {"sdgm": 3, "three": 4}  # points over which their answers are averaged
SCALING = {"w": Scaling(np.array([0, 0, 0], np.float32), np.array([2, 4, 8], np.float32))}


def own_shard(path: Path, modalities: Any = (X, W), **changes: Any) -> Shard:
    """Forty training rows and thirty test rows, two of which have no label."""
    labels = [*turns(28), -1, -1]
    test = clusters("test", labels, modalities, seed=1)
    return make_shard(path, modalities, **({"test": test} | changes))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Run]]:
    """Two seeds of a model, trained once; `three` is sshmvae-kl on three modalities. Some have `samples`."""
    made: dict[str, list[Run]] = {}

    def make(name: str) -> list[Run]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            model = "sshmvae-kl" if name == "three" else name
            modalities = (X, W, V) if name == "three" else MODALITIES.get(name, (X, W))
            shard = own_shard(folder / "shard.h5", modalities, scaling=SCALING if name == "sshmvae-kl" else None)
            values = {"epochs": 6, "learning_rate": 3e-2, "precision": "fp32", "samples": SAMPLES.get(name, 0)}
            stack = [make_settings(model, shard, seed=seed, **values) for seed in (0, 1)]
            made[name] = run_stack(folder, stack, [shard, shard])
        return made[name]

    return make


@pytest.fixture(scope="session")
def bundle(runs: Callable[[str], list[Run]]) -> Bundle:
    """An ensemble of two seeds of sshmvae-kl, whose modality w is scaled."""
    return gather(runs("sshmvae-kl"))


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """The bundle, written."""
    write_bundle(bundle, tmp_path / "model")
    return tmp_path / "model"


def features_of_test(shard: Shard) -> dict[str, Features]:
    return {m.name: shard.test.features(m.name) for m in shard.modalities}
