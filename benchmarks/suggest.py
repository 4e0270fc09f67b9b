"""What asking for the right labels gains: `mmssl suggest` against labels drawn at random, as many of each.

    python -m benchmarks.suggest hm-digits --out results/digits.json
    python -m benchmarks.suggest mfeat --epochs 20 ...
    python -m benchmarks.suggest hm-digits --cold --out results/cold.json

Both begin with the run of `--labels 20`. One adds 20 suggested rows a round, answered by the shard's own labels; the
other draws as many labels as there are by then with `--labels`, equally many of each class, which is more than chance
gives a person. With `--cold` there is no label at first: one asks a model that needs none, JMVAE, for 20 rows, and for
10 more while a class has not been seen; the other takes as many rows at random, and more while a class has not been
seen. Everything that is done is kept in the workspace, so the same command resumes.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.datasets.resolve import open_shards
from pipeline.runtime.failures import Failures
from pipeline.runtime.files import write_atomically
from pipeline.shards.shard import Shard
from trainer.inference.asking import open_models
from trainer.inference.suggestions import suggest
from trainer.jobs.environment import environment
from trainer.jobs.plan import Job, plan
from trainer.jobs.train import train_all
from trainer.training.progress import Silent
from trainer.training.run_folder import Run

MODEL = "sshmvae-kl"
MakeJob = Callable[[int, Mapping[int, str]], Job]  # of so many drawn labels, and answers by row


def trained(job: Job, root: Path, device: torch.device) -> Run:
    """The finished run of a job."""
    (run,) = train_all([job], [root / "runs" / job.settings.name()], device, Silent())
    return run


def accuracies(run: Run) -> dict[str, float]:
    """By given modalities, the accuracy on the test part, in percent."""
    scores = run.result().scores
    return {score.given: round(100 * score.accuracy, 3) for score in scores}


def answer(run: Run, shard: Shard, count: int, known: Mapping[int, str], seed: int) -> dict[int, str]:
    """The known answers and those to `count` more questions of a run, as the shard's own labels give them."""
    models, with_answers = open_models([run.folder], [shard.path], torch.device("cpu"))
    rows = [one.row for one in suggest(models, with_answers, count, answers=known, seed=seed)]
    return {**known, **{row: shard.classes[shard.train.labels[row]] for row in rows}}


def covering(
    asked: Callable[[Mapping[int, str], int], Mapping[int, str]], first: int, more: int, classes: int
) -> dict[int, str]:
    """Answers to `first` questions, and to `more` at a time until each class has been seen."""
    answers = dict(asked({}, first))
    while len(set(answers.values())) < classes:
        answers = dict(asked(answers, more))
    return answers


def cold(
    shard: Shard, seed: int, first: int, root: Path, device: torch.device, job: MakeJob
) -> Iterator[tuple[str, int, Run]]:
    """Runs with the first labels ever, and how many those are: chosen by a model without labels, and at random."""
    (without,) = plan("jmvae", [shard], preset="recommended", values={"labels": 0}, seeds=[seed])
    run = trained(without, root, device)
    labels, order = shard.train.labels, np.random.default_rng(seed).permutation(shard.train.rows).tolist()

    def at_random(known: Mapping[int, str], count: int) -> Mapping[int, str]:
        return {row: shard.classes[labels[row]] for row in order[: len(known) + count]}

    chosen = covering(
        lambda known, count: answer(run, shard, count, known, seed), first, first // 2, len(shard.classes)
    )
    yield "suggest", len(chosen), trained(job(0, chosen), root, device)
    drawn = covering(at_random, len(chosen), 1, len(shard.classes))
    yield "random", len(drawn), trained(job(0, drawn), root, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set whose training labels are all known, or a shard")
    parser.add_argument("--split", type=int, nargs="*", default=[], help="splits, one for each seed in turn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--first", type=int, default=20, help="labels to begin with")
    parser.add_argument("--step", type=int, default=20, help="labels per round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--cold", action="store_true", help="compare the first labels, where there is none")
    parser.add_argument("--epochs", type=int, help="instead of the recommended number")
    parser.add_argument("--beta", type=float, help="instead of the recommended weight")
    parser.add_argument("--precision", help="instead of float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--root", type=Path, default=Path("workspace"))
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all accuracies")
    options = parser.parse_args()
    device = torch.device(options.device)
    fixed: dict[str, Any] = {} if options.epochs is None else {"epochs": options.epochs}
    if options.beta is not None:
        fixed["beta"] = options.beta
    if options.precision is not None:
        fixed["precision"] = options.precision
    rows: list[dict[str, Any]] = []

    def record(way: str, seed: int, labels: int, run: Run) -> None:
        rows.append({"way": way, "seed": seed, "labels": labels, "accuracy": accuracies(run)})
        print(rows[-1], flush=True)
        content = {"data": options.data, "model": MODEL, "settings": fixed, **environment(device), "rows": rows}
        write_atomically(options.out, json.dumps(content, indent=1) + "\n")

    for place, seed in enumerate(options.seeds):
        splits = [options.split[place % len(options.split)]] if options.split else []
        (shard,) = open_shards(options.data, splits, options.root, Failures())

        def job(labels: int, answers: Mapping[int, str], shard: Shard = shard, seed: int = seed) -> Job:
            values = {**fixed, "labels": labels, "answers": tuple(sorted(answers.items()))}
            (found,) = plan(MODEL, [shard], preset="recommended", values=values, seeds=[seed])
            return found

        if options.cold:
            for way, labels, run in cold(shard, seed, options.first, options.root, device, job):
                record(way, seed, labels, run)
            continue
        run, answers = trained(job(options.first, {}), options.root, device), dict[int, str]()
        for way in ("random", "suggest"):
            record(way, seed, options.first, run)
        for number in range(1, options.rounds + 1):
            labels = options.first + number * options.step
            answers = answer(run, shard, options.step, answers, seed)
            run = trained(job(options.first, answers), options.root, device)
            record("suggest", seed, labels, run)
            record("random", seed, labels, trained(job(labels, {}), options.root, device))


if __name__ == "__main__":
    main()
