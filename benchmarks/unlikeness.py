"""How well `unlikeness` tells rows of a class that training never saw from the others, beside simpler measures.

    python -m benchmarks.unlikeness mfeat.h5 --labels 50 [--classes 1 3 8] [--seeds 0] [--out unlikeness.jsonl]

One class at a time is kept out of training entirely, of which the test part keeps its rows. The measure is the area
under the ROC curve with which a score ranks these rows above the others, given all modalities, and given each alone
(their mean). Scores: the percentile as users get it; one minus the largest probability; and the mean distance to the
five nearest training rows in the space of features, where each modality is standardised and weighs the same.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import mmssl
from pipeline.shards.schema import Features
from pipeline.shards.shard import Part, Shard

MODEL, NEIGHBOURS = "sshmvae-kl", 5
Score = NDArray[np.float64]


def without(shard: Shard, unknown: int, path: Path) -> Shard:
    """The shard without the training and test rows of a class, which it does not know."""
    classes = [name for k, name in enumerate(shard.classes) if k != unknown]

    def part(of: Part) -> mmssl.PartData:
        rows = of.labels != unknown
        labels = of.labels[rows]
        features = {m.name: of.features(m.name)[rows] for m in of.modalities}
        return mmssl.PartData(features, labels - (labels > unknown), of.ids[rows].tolist())

    return mmssl.write_shard(
        path,
        dataset="known",
        classes=classes,
        modalities=shard.modalities,
        train=part(shard.train),
        test=part(shard.test),
    )


def areas(shard: Shard, unknown: int, labels: int, seed: int, folder: Path) -> Iterator[tuple[str, str, float]]:
    """By what is given and by score, the area under the ROC curve."""
    known = without(shard, unknown, folder / "known.h5")
    (run,) = mmssl.train(MODEL, known, out=folder / "runs", labels=labels, seeds=[seed], device="cpu")
    model = mmssl.load(run.folder)
    names = [m.name for m in shard.modalities]
    training = {name: known.train.features(name) for name in names}
    test = {name: shard.test.features(name) for name in names}
    is_unknown = shard.test.labels == unknown
    for given in [names, *([name] for name in names)]:
        inputs = {name: test[name] if name in given else None for name in names}
        found = model.predictions(inputs)
        scores: Mapping[str, Score] = {
            "unlikeness": found.unlikeness,
            "1 - the largest probability": 1 - model.predict_proba(inputs).max(-1),
            "k nearest neighbours in feature space": distances(training, test, given),
        }
        for name, score in scores.items():
            yield "all" if len(given) > 1 else "one", name, float(roc_auc_score(is_unknown, score))


def distances(training: Mapping[str, Features], rows: Mapping[str, Features], given: Sequence[str]) -> Score:
    """The mean distance of rows to the nearest training rows, `[N]`."""
    scalers = {name: StandardScaler().fit(training[name]) for name in given}

    def joined(x: Mapping[str, Features]) -> NDArray[np.float64]:
        return np.concatenate([scalers[name].transform(x[name]) / x[name].shape[1] ** 0.5 for name in given], axis=1)

    index = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(joined(training))
    mean: Score = index.kneighbors(joined(rows))[0].mean(-1)
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shard", type=Path)
    parser.add_argument("--labels", type=int, required=True)
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 3, 8], help="those kept out, one at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    given = parser.parse_args()
    shard, found = Shard.open(given.shard), dict[tuple[str, str], list[float]]()
    for seed in given.seeds:
        for unknown in given.classes:
            with tempfile.TemporaryDirectory() as folder:
                for what, score, area in areas(shard, unknown, given.labels, seed, Path(folder)):
                    row: dict[str, Any] = {"seed": seed, "kept out": shard.classes[unknown], "given": what}
                    row |= {"score": score, "area": round(area, 4)}
                    print(json.dumps(row), flush=True)
                    found.setdefault((what, score), []).append(area)
                    if given.out is not None:
                        with given.out.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
    for (what, score), values in found.items():
        print(f"given {what}, {score}: mean {np.mean(values):.3f}, least {min(values):.3f}")


if __name__ == "__main__":
    main()
