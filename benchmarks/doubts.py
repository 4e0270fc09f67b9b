"""How many wrong labels `mmssl doubts` finds: labels flipped at random, and how many of them are listed first.

    python -m benchmarks.doubts mfeat --labels 200 400 --out results/doubts.json

A share of the labels is replaced by other classes, drawn at random. Of the same number of labels at the top of the
list, it prints how many were flipped: precision and recall in one, as there are as many as were flipped. Beside it
stand its halves, the network and the graph alone, and logistic regression on all modalities side by side, whose
probabilities of the given label are cross-validated by scikit-learn over as many parts. Everything that is trained is
kept in the workspace, so the same command resumes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.datasets.resolve import open_shards
from pipeline.runtime.failures import Failures
from pipeline.runtime.files import write_atomically
from pipeline.shards.shard import Shard
from trainer.data.answers import answered
from trainer.data.selection import choose_labelled, chosen_rows
from trainer.inference.asking import open_models
from trainer.inference.doubts import judge, margins
from trainer.inference.subsets import read_rows
from trainer.jobs.crossfit import without_each_part
from trainer.jobs.environment import environment
from trainer.jobs.plan import plan
from trainer.jobs.train import train_all
from trainer.training.progress import Silent
from trainer.training.run_folder import Run

MODEL = "sshmvae-kl"
Margins = NDArray[np.float64]


def flipped(shard: Shard, rows: NDArray[np.int64], share: float, seed: int) -> dict[int, str]:
    """Wrong classes for a share of the rows, by row."""
    rng = np.random.default_rng([seed, 5])
    chosen = rng.choice(rows, round(share * len(rows)), replace=False)
    classes = len(shard.classes)
    return {
        int(row): shard.classes[(shard.train.labels[row] + rng.integers(1, classes)) % classes]
        for row in np.sort(chosen)
    }


def of_logistic_regression(run: Run, shard: Shard, parts: int) -> dict[int, float]:
    """The margin of each labelled row's label, cross-validated."""
    rows = choose_labelled(run.settings, shard)
    x = np.concatenate(list(read_rows(shard.train, [m.name for m in shard.modalities], rows).values()), axis=1)
    y = shard.train.labels[rows]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(parts, shuffle=True, random_state=run.settings.seed)
    p = cross_val_predict(model, x, y, cv=folds, method="predict_proba")
    return dict(zip(rows.tolist(), margins(p, y).tolist(), strict=True))


def found(margin: dict[int, float], wrong: dict[int, str]) -> float:
    """The share of the wrong labels that are among as many of the smallest margins."""
    first = sorted(margin, key=lambda row: margin[row])[: len(wrong)]
    return round(len(set(first) & wrong.keys()) / len(wrong), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set whose training labels are all known, or a shard")
    parser.add_argument("--labels", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are flipped")
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--root", type=Path, default=Path("workspace"))
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all shares")
    options = parser.parse_args()
    device = torch.device(options.device)
    (shard,) = open_shards(options.data, [], options.root, Failures())
    rows: list[dict[str, Any]] = []
    for labels in options.labels:
        for seed in options.seeds:
            (job,) = plan(MODEL, [shard], preset="recommended", values={"labels": labels}, seeds=[seed])
            wrong = flipped(shard, chosen_rows(job.settings, shard), options.share, seed)
            settings = job.settings.model_copy(update={"answers": tuple(sorted(wrong.items()))})
            run, with_wrong = Run(options.root / "runs" / settings.name(), settings), answered(shard, settings)
            planned = without_each_part(run, with_wrong, options.parts)
            train_all([one.job for one in planned], [one.folder for one in planned], device, Silent())
            models, _ = open_models([one.folder for one in planned], [shard.path], device)
            judged = [judge(model, with_wrong) for model in models]
            row: dict[str, Any] = {"labels": labels, "seed": seed, "flipped": len(wrong)}
            for way in ("both", "network", "graph"):
                margin = dict[int, float]()
                for part in judged:
                    p = {"both": part.probabilities, "network": part.network.mean_joint, "graph": part.graph}[way]
                    margin |= dict(zip(part.rows.tolist(), margins(p, part.given).tolist(), strict=True))
                row[way] = found(margin, wrong)
            row["logistic regression"] = found(of_logistic_regression(run, with_wrong, options.parts), wrong)
            rows.append(row)
            print(row, flush=True)
            content = {"data": options.data, "model": MODEL, "share": options.share, **environment(device)}
            write_atomically(options.out, json.dumps(content | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
