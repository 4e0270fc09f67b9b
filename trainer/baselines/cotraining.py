"""Co-training: classifiers that each see one modality and teach each other (pseudo-code: docs/models/cotraining.md).

In each round, every view is fitted to its labelled rows and the pseudo-labels it has been given so far. It then labels,
among the examples that neither it nor all of the others have a pseudo-label for, those of each class that it is most
confident of, and the other views learn from these. The pseudo-labels are the whole state: every fit starts from scratch
and depends only on them and on the seed, so a round can be repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.runtime.interrupts import Stop, stop_requests
from trainer.data.interface import Data
from trainer.data.selection import Rows
from trainer.evaluation.metrics import Evaluation, Score, score
from trainer.evaluation.subsets import subsets
from trainer.nn.rng import seed_for
from trainer.settings.run_settings import CoTraining, Settings
from trainer.training.progress import Progress
from trainer.training.run_folder import Checkpoint, Run

LogQ = NDArray[np.float32]  # log-probabilities, [N, K]
Check = Callable[[], None]  # raises Interrupted if a stop was requested


class View(Protocol):
    """A classifier of some of the modalities."""

    def log_q(self, rows: Rows) -> LogQ:
        """The log-probabilities `[N, K]` of the classes at these rows of the data."""
        ...


V = TypeVar("V", bound=View)


@dataclass(frozen=True)
class PseudoLabels:
    """What other views have taught a view.

    Attributes:
        rows: the rows, ascending.
        labels: the label that each row was given.
        confidence: the probability of that label according to the view that gave it.
    """

    rows: Rows
    labels: Rows
    confidence: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> "PseudoLabels":
        """No pseudo-labels."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def of(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "PseudoLabels":
        """The pseudo-labels at these positions."""
        return PseudoLabels(self.rows[index], self.labels[index], self.confidence[index])


@dataclass(frozen=True)
class TrainingSet:
    """What a classifier is fitted to: labelled and pseudo-labelled rows, ascending, and their labels."""

    rows: Rows
    labels: Rows


class System(Protocol[V]):
    """One of the co-trained systems."""

    def fit(self, name: str, training_set: TrainingSet, check: Check) -> V:
        """Fits a new classifier on one modality."""
        ...

    def choose(self, view: V, rows: Rows, count: int, /) -> Rows:
        """At most `count` rows of a class, which the view labels for the others; `rows` are most confident first."""
        ...

    def fuse(self, views: Mapping[str, V], training_set: TrainingSet, check: Check, /) -> View | None:
        """Fits a classifier on all modalities; None if the views' predictions are multiplied instead."""
        ...

    def tensors(self, trained: "CoTrained[V]") -> dict[str, Tensor]:
        """The tensors to keep in `weights.safetensors`."""
        ...

    def from_tensors(self, tensors: Mapping[str, Tensor]) -> "CoTrained[V]":
        """The views and the fusion from the tensors of `weights.safetensors`.

        Raises:
            KeyError, RuntimeError: the tensors do not belong to this system.
        """
        ...


@dataclass(frozen=True)
class CoTrained(Generic[V]):
    """The trained views by modality, and the classifier on all modalities, if there is one."""

    views: Mapping[str, V]
    fusion: View | None

    def log_q(self, given: Sequence[str], rows: Rows) -> LogQ:
        """log q(y|given), `[N, K]`.

        For one modality, the prediction of its view; for all of them, that of the fusion, if there is one. Otherwise it
        is the normalised product of the views' predictions: Bayes' rule for modalities that are independent given y
        (the premise of co-training) and a uniform y.
        """
        if len(given) == len(self.views) and self.fusion is not None:
            return self.fusion.log_q(rows)
        logits = torch.stack([torch.from_numpy(self.views[name].log_q(rows)) for name in given]).sum(0)
        return logits.log_softmax(-1).numpy()


def group(settings: Settings) -> CoTraining:
    """The settings of a round of co-training."""
    assert settings.cotraining is not None, "settings of a co-trained system are validated to have them"
    return settings.cotraining


def check_views(settings: Settings, data: Data) -> None:
    """Checks that there are enough modalities for views that teach each other, and that every row has them.

    Raises:
        UsageError: there is only one, or some row lacks one, or there is no test part for the rounds to be scored on.
    """
    if data.present:
        raise UsageError(
            f"{settings.model} needs every modality in every row, and some rows lack {', '.join(data.present)}",
            "the generative models train on such rows: mmssl train sshmvae-kl",
        )
    if not len(data.examples[0].test):
        raise UsageError(f"{settings.model} needs a test part", "choose a model that does without: sshmvae-kl")
    if len(data.modalities) < 2:
        raise UsageError(
            f"{settings.model} needs two modalities or more that teach each other, but there is only "
            f"{data.modalities[0].name}",
            "leave out --modality, or choose a model for one modality: m2, sdgm",
        )


def scores(trained: CoTrained[V], data: Data, *, every: bool = True) -> tuple[Score, ...]:
    """Scores on the test set, given each subset of the modalities; only single modalities if not `every`."""
    names = [modality.name for modality in data.modalities]
    test = data.examples[0].test
    label = data.label.cpu().numpy()[test]
    return tuple(
        score("+".join(given), "none" if len(given) == len(names) else "views", trained.log_q(given, test), label)
        for given in subsets(names)
        if every or len(given) == 1
    )


def evaluation(trained: CoTrained[V], data: Data) -> Evaluation:
    """The scores on the test set; without a generative model there is no ELBO."""
    return Evaluation(scores(trained, data), None)


def cotrain(run: Run, data: Data, system: System[V], progress: Progress) -> CoTrained[V]:
    """Runs the rounds that are not yet saved, and then the final fit.

    Raises:
        Interrupted: SIGTERM or Ctrl-C was received; the rounds that were completed are saved.
    """
    settings, examples = run.settings, data.examples[0]
    names = [modality.name for modality in data.modalities]
    known = data.label.cpu().numpy()
    done, taught = restore(run, names)
    metrics: list[dict[str, object]] = [dict(row) for row in run.metrics()[:done]]
    if len(metrics) < done:
        raise DataError(f"{run.folder} has lost the metrics of some rounds", "delete the folder to start again")
    total = (settings.epochs + 1) * len(names) + 1
    views: dict[str, V] = {}

    def training_set(pseudo_labels: PseudoLabels) -> TrainingSet:
        rows = np.concatenate([examples.labelled, pseudo_labels.rows])
        labels = np.concatenate([known[examples.labelled], pseudo_labels.labels])
        order = rows.argsort()
        return TrainingSet(rows[order], labels[order])

    with stop_requests() as stop:

        def check() -> None:
            _raise_if_stop_requested(stop, done, settings.epochs)

        def fit() -> None:
            for k, name in enumerate(names):
                if name not in views:
                    views[name] = system.fit(name, training_set(taught[name]), check)
                progress.step(done * len(names) + k + 1, total)
                check()

        while done < settings.epochs:
            fit()
            metrics.append(_record(done + 1, CoTrained(views, None), data, taught))
            for name, new in exchange(system, views, examples.unlabelled, taught, settings, done).items():
                if len(new.rows):
                    taught[name] = merge([taught[name], new])
                    del views[name]  # its training set has changed
            run.write_metrics(metrics)
            done += 1
            _save(run, done, taught)
            progress.epoch(done, settings.epochs, _summary(metrics[-1]))
        fit()
        fusion = system.fuse(views, training_set(merge(list(taught.values()))), check)
        progress.step(total, total)
    return CoTrained(views, fusion)


def exchange(
    system: System[V],
    views: Mapping[str, V],
    unlabelled: Rows,
    taught: Mapping[str, PseudoLabels],
    settings: Settings,
    round_: int,
) -> dict[str, PseudoLabels]:
    """The new pseudo-labels of each view in a round.

    Args:
        unlabelled: the unlabelled rows.
        taught: the pseudo-labels that each view has been given so far.
        round_: the number of the round, from 0.
    """
    has = {name: np.isin(unlabelled, pseudo_labels.rows) for name, pseudo_labels in taught.items()}
    # A view can teach rows that it was not taught itself, as long as one of the others has yet to learn them.
    teaches = {
        name: ~has[name] & ~np.logical_and.reduce([has[other] for other in views if other != name]) for name in views
    }
    pool = np.flatnonzero(np.logical_or.reduce(list(teaches.values())))
    size = group(settings).pool
    if 0 < size < len(pool):
        rng = np.random.default_rng(seed_for(settings.seed, "pool", round_))
        pool = np.sort(rng.choice(pool, size, replace=False))
    proposals = {
        name: propose(system, views[name], unlabelled[pool[teaches[name][pool]]], group(settings).k_best)
        for name in views
    }
    new = {}
    for name in views:
        offered = merge([proposals[other] for other in views if other != name])
        new[name] = offered.of(~np.isin(offered.rows, taught[name].rows))
    return new


def propose(system: System[V], view: V, rows: Rows, count: int) -> PseudoLabels:
    """The rows that a view would label for the others, at most `count` per class, each with its most probable label."""
    if len(rows) == 0:
        return PseudoLabels.nothing()
    log_q = view.log_q(rows)
    labels, confidence = log_q.argmax(-1), np.exp(log_q.max(-1).astype(np.float64))
    chosen = []
    for k in range(log_q.shape[1]):
        of_class = np.flatnonzero(labels == k)
        most_confident = of_class[np.argsort(-confidence[of_class], kind="stable")]
        if len(most_confident):
            chosen.append(np.searchsorted(rows, system.choose(view, rows[most_confident], count)))
    index = np.concatenate(chosen)
    return merge([PseudoLabels(rows[index], labels[index].astype(np.int64), confidence[index])])


def merge(parts: Sequence[PseudoLabels]) -> PseudoLabels:
    """Joins pseudo-labels by ascending row; for a row with several, the most confident wins, or the first of equals."""
    columns = [field.name for field in fields(PseudoLabels)]
    joined = PseudoLabels(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))
    joined = joined.of(np.argsort(-joined.confidence, kind="stable"))
    return joined.of(np.unique(joined.rows, return_index=True)[1])


def restore(run: Run, names: Sequence[str]) -> tuple[int, dict[str, PseudoLabels]]:
    """The number of rounds that are saved, and the pseudo-labels that each view was given in them."""
    checkpoint = run.read_checkpoint()
    if checkpoint is None:
        return 0, {name: PseudoLabels.nothing() for name in names}
    tensors = checkpoint.tensors
    taught = {
        name: PseudoLabels(*(tensors[f"{field.name} of {name}"].numpy() for field in fields(PseudoLabels)))
        if f"rows of {name}" in tensors
        else PseudoLabels.nothing()
        for name in names
    }
    return int(checkpoint.values["rounds"]), taught


def _save(run: Run, done: int, taught: Mapping[str, PseudoLabels]) -> None:
    tensors = {
        f"{field.name} of {name}": torch.from_numpy(getattr(pseudo_labels, field.name))
        for name, pseudo_labels in taught.items()
        if len(pseudo_labels.rows)
        for field in fields(PseudoLabels)
    }
    run.write_checkpoint(Checkpoint(tensors, {"rounds": done}))


def _record(round_: int, trained: CoTrained[V], data: Data, taught: Mapping[str, PseudoLabels]) -> dict[str, object]:
    """A row of metrics.csv: the number of pseudo-labels that each view has been given so far, and its accuracy."""
    row: dict[str, object] = {"epoch": round_}
    row |= {f"taught {name}": len(pseudo_labels.rows) for name, pseudo_labels in taught.items()}
    return row | {f"accuracy {each.given}": f"{each.accuracy:.6f}" for each in scores(trained, data, every=False)}


def _summary(row: Mapping[str, object]) -> str:
    """The accuracies of a round in one line."""
    shown = {key.removeprefix("accuracy "): value for key, value in row.items() if key.startswith("accuracy ")}
    return ", ".join(f"{given} {100 * float(str(value)):.2f} %" for given, value in shown.items())


def _raise_if_stop_requested(stop: Stop, done: int, rounds: int) -> None:
    if stop.requested:
        raise Interrupted(
            f"stopped by {stop.name} after {done} of {rounds} rounds; completed rounds are saved",
            "run the same command again to resume",
        )
