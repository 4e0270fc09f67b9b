"""What rows that lack modalities, and classes of unequal frequency, cost: recommended settings against everyday tools.

    python -m benchmarks.lacking holes mfeat.h5 --labels 50 --seeds 5 6 7 8 9 [--rate 0.5] [--out holes.jsonl]
    python -m benchmarks.lacking thinned mfeat.h5 --labels 100 --seeds 5 6 7 8 9 [--out thinned.jsonl]
    python -m benchmarks.lacking dropped hm-digits.h5 --labels 50 [--rate 0.333] [--out dropped.jsonl]

`holes`    each entry of the training rows is missing at a rate, but never all of a row; the test rows are complete, or
           have holes at the same rate. Beside it: logistic regression, self-training and label spreading on all
           modalities joined, with zeros or the training rows' mean for what is missing.
`thinned`  the classes keep between all and a tenth of their training rows, in a random order, and labelled rows are
           drawn at random; p(y) is uniform, that of the labelled rows, or wrong (the true one with its classes in
           reverse). The test part is balanced, so its accuracy is the balanced one.
`dropped`  unlabelled rows lack one of two modalities at a rate: trained on, left out, or not lacking anything.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from pipeline.shards.schema import Features
from pipeline.shards.shard import Part, Shard
from pipeline.shards.writing import PartData, write_shard
from trainer.data.selection import choose_labelled
from trainer.data.streaming import load
from trainer.evaluation.metrics import Evaluation
from trainer.jobs.api import train
from trainer.jobs.plan import plan
from trainer.training.method import method_of
from trainer.training.run_folder import Run

MODEL = "sshmvae-kl"
CPU = torch.device("cpu")
Mask = NDArray[np.bool_]
Present = Mapping[str, Mask]
Row = dict[str, Any]


def holes(shard: Shard, folder: Path, labels: int, seed: int, rate: float) -> Iterator[Row]:
    rng = np.random.default_rng(seed)
    names = [m.name for m in shard.modalities]
    train_present, test_present = (_holes(part.rows, names, rate, rng) for part in (shard.train, shard.test))
    complete = _write(folder / "complete.h5", shard, train=_part(shard.train, train_present))
    partial = _write(
        folder / "partial.h5",
        shard,
        train=_part(shard.train, train_present),
        test=_part(shard.test, test_present, marked=False),
    )
    run = _trained(complete, folder, labels=labels, seed=seed)
    yield {
        "system": f"{MODEL} recommended",
        "complete test rows": _accuracy(run.result()),
        "test rows with holes": _accuracy(_evaluated(run, partial)),
    }
    rows = choose_labelled(run.settings, complete)
    y = np.full(complete.train.rows, -1)
    y[rows] = complete.train.labels[rows]
    for filling in ("zeros", "the mean"):
        x, whole, some = (
            _joined(part, complete.train, filling) for part in (complete.train, complete.test, partial.test)
        )
        for name, classifier in _everyday().items():
            known = slice(None) if name != "logistic regression" else rows
            classifier.fit(x[known], y[known])
            yield {
                "system": f"{name}, {filling}",
                "complete test rows": _percent(classifier.predict(whole) == complete.test.labels),
                "test rows with holes": _percent(classifier.predict(some) == partial.test.labels),
            }


def thinned(shard: Shard, folder: Path, labels: int, seed: int, rate: float) -> Iterator[Row]:
    rng, classes, label = np.random.default_rng(seed), len(shard.classes), shard.train.labels
    shares = (1 - (1 - rate) * rng.permutation(classes) / (classes - 1)).tolist()
    of_class = [np.flatnonzero(label == k) for k in range(classes)]
    kept = [
        rng.choice(rows, round(share * len(rows)), replace=False) for rows, share in zip(of_class, shares, strict=True)
    ]
    keep = np.zeros(shard.train.rows, np.bool_)
    keep[np.concatenate(kept)] = True
    chosen = np.zeros(shard.train.rows, np.bool_)
    while len(np.unique(label[chosen])) < classes:
        chosen[:] = False
        chosen[rng.choice(np.flatnonzero(keep), labels, replace=False)] = True
    thin = _write(folder / "thinned.h5", shard, train=_part(shard.train, None, keep, labelled=chosen))
    true = np.bincount(label[keep], minlength=classes) / keep.sum()
    priors = {"uniform": "uniform", "of the labelled rows": "labelled", "wrong": (true[::-1] / true.sum()).tolist()}
    for name, prior in priors.items():
        run = _trained(thin, folder / name, labels="shard", seed=seed, prior=prior)
        yield {"system": f"p(y) {name}", "balanced accuracy": _accuracy(run.result())} | _singles(run.result())


def dropped(shard: Shard, folder: Path, labels: int, seed: int, rate: float) -> Iterator[Row]:
    rng = np.random.default_rng(seed)
    (job,) = plan(MODEL, [shard], preset="recommended", values={"labels": labels}, seeds=[seed])
    chosen = np.zeros(shard.train.rows, np.bool_)
    chosen[choose_labelled(job.settings, shard)] = True
    some = ~chosen & (rng.random(shard.train.rows) < rate)
    which = rng.integers(len(shard.modalities), size=shard.train.rows)
    present = {m.name: ~(some & (which == k)) for k, m in enumerate(shard.modalities)}
    everything = np.ones_like(some)
    for name, part in {
        "rows that lack something train": _part(shard.train, present, everything, labelled=chosen),
        "they are left out": _part(shard.train, None, ~some, labelled=chosen),
        "they lack nothing": _part(shard.train, None, everything, labelled=chosen),
    }.items():
        run = _trained(_write(folder / f"{name}.h5", shard, train=part), folder / name, labels="shard", seed=seed)
        yield {"system": name, "all": _accuracy(run.result())} | _singles(run.result())


def _holes(rows: int, names: list[str], rate: float, rng: np.random.Generator) -> Present:
    there = rng.random((rows, len(names))) >= rate
    nothing = ~there.any(1)
    there[nothing, rng.integers(len(names), size=int(nothing.sum()))] = True
    return {name: there[:, k] for k, name in enumerate(names)}


def _part(
    part: Part, present: Present | None, rows: Mask | None = None, labelled: Mask | None = None, marked: bool = True
) -> PartData:
    rows = np.ones(part.rows, np.bool_) if rows is None else rows
    features = {m.name: part.features(m.name)[rows].copy() for m in part.modalities}
    present = None if present is None else {name: there[rows] for name, there in present.items()}
    for name, there in (present or {}).items():
        features[name][~there] = 0
    mask = part.labelled if labelled is None else labelled
    return PartData(
        features,
        part.labels[rows],
        part.ids[rows].tolist(),
        None if mask is None or not marked else mask[rows],
        present,
    )


def _write(path: Path, shard: Shard, train: PartData, test: PartData | None = None) -> Shard:
    return write_shard(
        path,
        dataset=path.stem.replace(" ", "-"),
        classes=shard.classes,
        modalities=shard.modalities,
        train=train,
        test=_part(shard.test, None, marked=False) if test is None else test,
    )


def _trained(shard: Shard, folder: Path, *, seed: int, **settings: Any) -> Run:
    (run,) = train(MODEL, shard, out=folder / "runs", preset="recommended", seeds=[seed], device="cpu", **settings)
    return run


def _evaluated(run: Run, shard: Shard) -> Evaluation:
    data = load([run.settings], [shard], CPU)
    return method_of(run.settings).load(run, data, CPU).evaluate()


def _accuracy(evaluation: Evaluation) -> float:
    return round(100 * max(evaluation.scores, key=lambda score: score.given.count("+")).accuracy, 2)


def _singles(evaluation: Evaluation) -> dict[str, float]:
    return {s.given: round(100 * s.accuracy, 2) for s in evaluation.scores if "+" not in s.given}


def _percent(right: NDArray[np.bool_]) -> float:
    return round(100 * float(right.mean()), 2)


def _joined(part: Part, training: Part, filling: str) -> Features:
    columns = []
    for m in part.modalities:
        values = part.features(m.name).copy()
        if filling == "the mean":
            values[~part.has(m.name)] = training.features(m.name)[training.has(m.name)].mean(0)
        columns.append(values)
    return np.concatenate(columns, axis=1)


def _everyday() -> dict[str, Any]:
    def regression() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

    return {
        "logistic regression": regression(),
        "self-training": SelfTrainingClassifier(regression()),
        "label spreading": make_pipeline(StandardScaler(), LabelSpreading(kernel="knn", n_neighbors=7)),
    }


MEASURES: dict[str, tuple[Callable[..., Iterator[Row]], float]] = {
    "holes": (holes, 0.5),
    "thinned": (thinned, 0.1),
    "dropped": (dropped, 1 / 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("shard", type=Path)
    parser.add_argument("--labels", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rate", type=float, help="share of entries, rows, or of the rarest class's rows")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    given = parser.parse_args()
    measure, usual = MEASURES[given.measure]
    shard, found = Shard.open(given.shard), dict[str, list[Row]]()
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(shard, Path(folder), given.labels, seed, given.rate or usual):
                print(json.dumps({"seed": seed} | row), flush=True)
                found.setdefault(row["system"], []).append(row)
                if given.out is not None:
                    with given.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"seed": seed} | row) + "\n")
    for system, rows in found.items():
        means = {key: round(float(np.mean([row[key] for row in rows])), 2) for key in rows[0] if key != "system"}
        print(f"{system}: mean of {len(rows)} seeds {means}")


if __name__ == "__main__":
    main()
