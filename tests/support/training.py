"""Small problems for the trainer's tests: shards of separable clusters, networks of a few units, and ready runs."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard
from trainer.data.interface import Data
from trainer.data.resident import load
from trainer.evaluation.metrics import Evaluation
from trainer.jobs.plan import Job
from trainer.jobs.train import train_all
from trainer.settings.run_settings import Settings, build
from trainer.training.progress import Progress, Silent
from trainer.training.run_folder import Run
from trainer.training.step import Step

CPU = torch.device("cpu")
CLASSES = ("cup", "bowl", "spoon")
X, W, V = Modality("x", 6, "bernoulli"), Modality("w", 3, "nonnegative"), Modality("v", 2, "gaussian")
THREE = (X, W, V)
MODELS = ("jmvae", "jmvae-kl", "m2", "sdgm", "ssmvae", "sshmvae", "sshmvae-kl")
WITH_LABELS = MODELS[2:]
CO_TRAINED = ("ct-svm", "cotraining")

_ENCODER = {"q(a|x)": "x-D8BR, D4"}
_SSMVAE = {
    "q(y|X)": "(X-D8BR)-D8BR, DK",
    "q(z|X,y)": "(y, X-D8BR)-D8BR, D4",
    "p(x|z,y)": "(z, y)-D8BR, Dx",
}
_SSHMVAE = {
    "q(a|X)": "(X-D8BR)-D8BR, D4",
    "q(y|a)": "a-D8BR, DK",
    "q(z|a,y)": "(a, y)-D8BR, D2",
    "p(a|z,y)": "(z, y)-D8BR, D4",
    "p(x|a)": "a-D8BR, Dx",
}
_JMVAE = {"q(z|X)": "(X-D8BR)-D8BR, D4", "p(x|z)": "z-D8BR, Dx"}
NETWORKS: dict[str, dict[str, str]] = {
    "jmvae": _JMVAE,
    "jmvae-kl": _JMVAE | {"q(z|x)": "x-D8BR, D4"},
    "m2": _SSMVAE,
    "sdgm": {
        "q(a|X)": "X-D8BR, D4",
        "q(y|X,a)": "(X-D8BR, a)-D8BR, DK",
        "q(z|X,y,a)": "(X-D8BR, y, a)-D8BR, D2",
        "p(a|z,y)": "(z, y)-D8BR, D4",
        "p(x|a,y,z)": "(a, y, z)-D8BR, Dx",
    },
    "ssmvae": _SSMVAE,
    "sshmvae": _SSHMVAE,
    "sshmvae-kl": _SSHMVAE | _ENCODER,
    "ct-svm": {},
    "cotraining": {"q(y|x)": "x-D8BR, DK", "q(y|X)": "(X)-D8BR, DK"},
}
ROUNDS = {"k_best": 2, "passes": 1, "least_steps": 12}


def clusters(
    name: str, labels: Sequence[int], modalities: Sequence[Modality], seed: int = 0, spread: float = 0.1
) -> PartData:
    """A part whose row of class k lies near the k-th corner in every modality; class -1 takes the corners in turn.

    Ids are `name-0`, `name-1`, ...
    """
    rng = np.random.default_rng(seed)
    corner = np.where(np.asarray(labels) < 0, np.arange(len(labels)) % len(CLASSES), labels)
    features = {}
    for m in modalities:
        centre = np.array([np.arange(m.width) % len(CLASSES) == k for k in range(len(CLASSES))], float)
        value = centre[corner] + spread * rng.standard_normal((len(corner), m.width))
        if m.distribution == "bernoulli":
            value = value.clip(0, 1)
        elif m.distribution == "nonnegative":
            value = np.abs(value)
        features[m.name] = value.astype(np.float32)
    return PartData(features, np.asarray(labels, np.int64), [f"{name}-{row}" for row in range(len(corner))])


def flipped(path: Path, flip: float = 0.25, width: int = 32, classes: int = 5) -> Shard:
    """Bits of a prototype per class and modality, each flipped at a rate: easy with many examples, hard with two each.

    Seven hundred training and four hundred test rows; in both the classes take turns.
    """
    modalities = (Modality("x", width, "bernoulli"), Modality("w", width, "bernoulli"))
    prototypes = [np.random.default_rng(100 + k).random((classes, width)) < 0.5 for k in range(len(modalities))]

    def part(name: str, rows: int, seed: int) -> PartData:
        rng, labels = np.random.default_rng(seed), np.arange(rows) % classes
        features = {
            m.name: (bits[labels] ^ (rng.random((rows, width)) < flip)).astype(np.float32)
            for m, bits in zip(modalities, prototypes, strict=True)
        }
        return PartData(features, labels, [f"{name}-{row}" for row in range(rows)])

    names = [f"class {k}" for k in range(classes)]
    return write_shard(
        path,
        dataset="flipped",
        classes=names,
        modalities=modalities,
        train=part("train", 700, 1),
        test=part("test", 400, 2),
    )


def turns(rows: int) -> list[int]:
    """Labels 0, 1, 2, 0, 1, 2, ..."""
    return [row % len(CLASSES) for row in range(rows)]


def make_shard(path: Path, modalities: Sequence[Modality] = (X, W), **changes: Any) -> Shard:
    """Forty training and twelve test rows of clusters; keywords replace what `write_shard` is given."""
    content: dict[str, Any] = {
        "dataset": "clusters",
        "classes": CLASSES,
        "modalities": modalities,
        "train": clusters("train", turns(40), modalities),
        "test": clusters("test", turns(12), modalities, seed=1),
    }
    return write_shard(path, **(content | changes))


def with_holes(part: PartData, rate: float = 0.4, seed: int = 0) -> PartData:
    """The same part, each value of which is missing at a rate, but never all of a row."""
    rng, names = np.random.default_rng(seed), list(part.features)
    there = rng.random((len(part.labels), len(names))) >= rate
    there[np.arange(len(there)), rng.integers(len(names), size=len(there))] = True
    present: dict[str, NDArray[np.bool_]] = {name: there[:, k] for k, name in enumerate(names)}
    features = {name: np.asarray(part.features[name]) * present[name][:, None] for name in names}
    return replace(part, features=features, present=present)


def holey_shard(path: Path, modalities: tuple[Modality, ...] = THREE, rows: int = 60, **changes: Any) -> Shard:
    """A shard of training and thirty test rows of clusters, of which values of a modality are missing."""
    train = with_holes(clusters("train", turns(rows), modalities))
    return make_shard(
        path, modalities, train=train, test=with_holes(clusters("test", turns(30), modalities)), **changes
    )


def relabelled_shards(folder: Path, spread: float = 0.1) -> list[Shard]:
    """Three shards with nine labelled rows: plain, with other unlabelled labels, with two labels exchanged."""
    shards = []
    for name in ("plain", "unlabelled", "labelled"):
        train = clusters("train", turns(40), (X, W), spread=spread)
        labels = np.array(train.labels)
        if name == "unlabelled":
            labels[9:] = np.random.default_rng(0).integers(-1, 3, 31)
        if name == "labelled":
            labels[[0, 1]] = labels[[1, 0]]
        train.labelled, train.labels = np.arange(40) < 9, labels
        shards.append(make_shard(folder / f"{name}.h5", train=train))
    return shards


def make_settings(model: str, shard: Shard, **changes: Any) -> Settings:
    """Settings of a very short run: 34 unlabelled rows in batches of 8 are 5 steps an epoch."""
    values: Mapping[str, Any] = {
        "model": model,
        "data": shard.dataset,
        "digest": shard.digest,
        "split": shard.split,
        "modalities": ("x",) if model == "sdgm" else (),
        "labels": 6,
        "epochs": 2,
        "batch_size": 8,
        "labelled_batch_size": 6,
        "learning_rate": 1e-2,
        "iterations": 3,
        "networks": NETWORKS[model],
        "cotraining": ROUNDS if model in CO_TRAINED else None,
    }
    return build({**values, **changes})


def make_data(stack: Sequence[Settings], *shards: Shard) -> Data:
    """The data of a stack on the CPU; one shard serves all."""
    return load(stack, shards if len(shards) > 1 else shards * len(stack), CPU)


def make_step(stack: Sequence[Settings], *shards: Shard) -> Step:
    return Step(stack, make_data(stack, *shards), CPU)


def run_stack(
    folder: Path,
    stack: Sequence[Settings],
    shards: Sequence[Shard],
    progress: Progress | None = None,
    most: int = 16,
) -> list[Run]:
    """Trains and evaluates on the CPU, each replica in `folder/0`, `folder/1`, ..."""
    jobs = [Job(settings, shard) for settings, shard in zip(stack, shards, strict=True)]
    return train_all(jobs, [folder / str(r) for r in range(len(stack))], CPU, progress or Silent(), most)


class StopAfter(Silent):
    """Sends this process a signal after each of these steps, and keeps the steps that it saw."""

    def __init__(self, *steps: int, which: signal.Signals = signal.SIGTERM) -> None:
        self.steps, self.which, self.seen = set(steps), which, list[int]()

    def step(self, done: int, total: int) -> None:
        assert done <= total
        self.seen.append(done)
        if done in self.steps:
            signal.raise_signal(self.which)


def scores(evaluation: Evaluation) -> dict[tuple[str, str], float]:
    """Accuracy by (given, completion)."""
    return {(score.given, score.completion): score.accuracy for score in evaluation.scores}


OUTCOME = ("weights.safetensors", "metrics.csv", "result.json", "labelled.txt", "settings.json")


def outcome(run: Run) -> dict[str, bytes]:
    """The bytes of every file of a finished run but its provenance."""
    return {name: (run.folder / name).read_bytes() for name in OUTCOME}
