"""What predicting costs beside the model's own forward passes: 10,000 rows of vectors.

python -m benchmarks.predict [--threads 1] [--rounds 10] [--out rows.jsonl]

The forward passes are those that the answers need, on batches that are ready on the device: for every row the joint
encoder and the classifier, the decoders of what is given (for unlikeness), and each given modality's own encoder and
classifier (for its opinion). Probabilities alone need the encoder and the classifier.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Rows, in_turn, middle, spread
from pipeline.shards.schema import Features, Modality
from pipeline.shards.writing import PartData, write_shard
from trainer.evaluation.evaluate import BATCH
from trainer.inference.exporting import gather
from trainer.inference.network import Batch
from trainer.inference.predictor import Predictor
from trainer.jobs.api import train

ROWS, CLASSES = 10_000, 10
GOAL = "<= 1.2"
# Networks of 512 units as in the paper's MNIST, of two halves; of 128 units, recommended for six views of digits.
SIZES: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    "two modalities of 392, 512 units": ((392, 392), {"preset": "mnist"}),
    "six modalities of 6 to 240, 128 units": ((76, 216, 64, 240, 47, 6), {"preset": "recommended"}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="file for the results as JSON lines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rows = Rows("predict", device)
    for name, (widths, settings) in SIZES.items():
        predictor, x = make(widths, settings, device)
        complete = np.ones((ROWS, len(widths)), np.bool_)
        measure(rows, f"{name}, complete rows", predictor, x, complete, device, options.rounds)
        some = np.random.default_rng(0).random((ROWS, len(widths))) < 0.5
        some[:, 0] |= ~some.any(1)
        measure(rows, f"{name}, half of all missing", predictor, x, some, device, options.rounds)
    rows.write(options.out)


def measure(
    rows: Rows,
    name: str,
    predictor: Predictor,
    x: dict[str, Features],
    present: NDArray[np.bool_],
    device: torch.device,
    rounds: int,
) -> None:
    """Times both kinds of answers and what they need, in turn."""
    seconds = in_turn(
        {
            "everything": lambda: predictor(x, present),
            "its passes": passes(predictor, x, present, everything=True),
            "probabilities": lambda: predictor.probabilities(x, present),
            "their passes": passes(predictor, x, present, everything=False),
        },
        device,
        rounds,
        warm_up=1,
    )
    medians = {what: middle(values) for what, values in seconds.items()}
    spreads = {what: f"{100 * spread(values):.1f} %" for what, values in seconds.items()}
    for what, needed in (("everything", "its passes"), ("probabilities", "their passes")):
        rows.add(
            f"{what} / {needed}: {name}", medians[what] / medians[needed], GOAL,
            rows_per_second=round(ROWS / medians[what]), spreads=spreads,
        )  # fmt: skip


def passes(
    predictor: Predictor, x: dict[str, Features], present: NDArray[np.bool_], everything: bool
) -> Callable[[], None]:
    """The forward passes alone, on batches that are ready."""
    network, names = predictor.network, predictor.card.names
    joint: list[Batch] = []
    for pattern in np.unique(present, axis=0):
        given = [name for name, there in zip(names, pattern, strict=True) if there]
        joint += batches(predictor, x, given, np.flatnonzero((present == pattern).all(1)))
    single: list[Batch] = []
    for m, name in enumerate(names):
        single += batches(predictor, x, [name], np.flatnonzero(present[:, m] & (present.sum(1) > 1)))

    def run() -> None:
        with network.computing():
            for batch in joint:
                network.answers(batch) if everything else network.probabilities(batch)
            for batch in single if everything else ():
                network.probabilities(batch)

    return run


def batches(predictor: Predictor, x: dict[str, Features], given: Sequence[str], rows: NDArray[np.int64]) -> list[Batch]:
    return [
        predictor.network.batch({name: np.ascontiguousarray(x[name][rows[start : start + BATCH]]) for name in given})
        for start in range(0, len(rows), BATCH)
    ]


def make(
    widths: Sequence[int], settings: dict[str, object], device: torch.device
) -> tuple[Predictor, dict[str, Features]]:
    """A model of such data, after one epoch, and rows to predict."""
    rng = np.random.default_rng(0)
    modalities = [Modality(f"m{k}", width, "bernoulli") for k, width in enumerate(widths)]

    def part(name: str, rows: int) -> PartData:
        features = {m.name: rng.random((rows, m.width), np.float32) for m in modalities}
        return PartData(features, np.arange(rows) % CLASSES, [f"{name}-{row}" for row in range(rows)])

    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(
            Path(folder) / "shard.h5",
            dataset="noise",
            classes=[f"class {k}" for k in range(CLASSES)],
            modalities=modalities,
            train=part("train", 2000),
            test=part("test", 200),
        )
        (run,) = train("sshmvae-kl", shard, out=folder, device="cpu", epochs=1, labels=100, **settings)  # type: ignore[arg-type]
        bundle = gather([run], shard=shard)
    return bundle.predictor(device), {m.name: rng.random((ROWS, m.width), np.float32) for m in modalities}


if __name__ == "__main__":
    main()
