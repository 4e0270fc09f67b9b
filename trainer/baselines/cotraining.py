"""Co-training: classifiers that each see one modality, and teach one another (docs/compared.md has the pseudo-code).

In a round every view is fitted to what it was taught so far, then labels, of the examples that are new to it and to one
of the others, those of each class that it is surest of; the others learn from them. What a view learns from is the
whole state: a fit starts anew each time and depends on it and on the seed alone, so that a round can be done again.
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
from trainer.evaluation.metrics import Evaluation, Score, score, subsets
from trainer.nn.rng import seed_for
from trainer.settings.run_settings import CoTraining, Settings
from trainer.training.progress import Progress
from trainer.training.run_folder import Checkpoint, Run

LogQ = NDArray[np.float32]  # log-probabilities, [N, K]
Check = Callable[[], None]  # raises Interrupted where someone asked for it


class View(Protocol):
    """A classifier of some of the modalities."""

    def log_q(self, rows: Rows) -> LogQ:
        """log q(y|its modalities) of these rows of the data, `[N, K]`."""
        ...


V = TypeVar("V", bound=View)


@dataclass(frozen=True)
class PseudoLabels:
    """What others have taught a view: rows ascending, the label each was given, and how sure its teacher was."""

    rows: Rows
    labels: Rows
    confidence: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> "PseudoLabels":
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def of(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "PseudoLabels":
        return PseudoLabels(self.rows[index], self.labels[index], self.confidence[index])


@dataclass(frozen=True)
class TrainingSet:
    """What a classifier is fitted to: the labelled rows and the taught ones, ascending, and their labels."""

    rows: Rows
    labels: Rows


class System(Protocol[V]):
    """One of the co-trained systems."""

    def fit(self, name: str, lesson: TrainingSet, check: Check) -> V:
        """A fresh classifier on one modality."""
        ...

    def choose(self, view: V, rows: Rows, count: int, /) -> Rows:
        """Of a class's rows, the surest first, the `count` (or fewer) that the view teaches."""
        ...

    def fuse(self, views: Mapping[str, V], lesson: TrainingSet, check: Check, /) -> View | None:
        """A classifier on all modalities; None where the views' predictions are multiplied."""
        ...

    def tensors(self, trained: "CoTrained[V]") -> dict[str, Tensor]:
        """What `weights.safetensors` keeps."""
        ...

    def from_tensors(self, tensors: Mapping[str, Tensor]) -> "CoTrained[V]":
        """
        Raises:
            KeyError, RuntimeError: they are not this system's.
        """
        ...


@dataclass(frozen=True)
class CoTrained(Generic[V]):
    """The trained views by modality, and the classifier on all of them, where there is one."""

    views: Mapping[str, V]
    fusion: View | None

    def log_q(self, given: Sequence[str], rows: Rows) -> LogQ:
        """log q(y|given), `[N, K]`.

        One modality: its view's own. All of them: the fusion, if there is one. Else the views' product, normalised:
        what Bayes' rule makes of modalities that are independent given y, the premise of co-training, if y is uniform.
        """
        if len(given) == len(self.views) and self.fusion is not None:
            return self.fusion.log_q(rows)
        logits = torch.stack([torch.from_numpy(self.views[name].log_q(rows)) for name in given]).sum(0)
        return logits.log_softmax(-1).numpy()


def group(settings: Settings) -> CoTraining:
    assert settings.cotraining is not None, "its settings are validated"
    return settings.cotraining


def check_views(settings: Settings, data: Data) -> None:
    """
    Raises:
        UsageError: there are not two modalities to teach one another.
    """
    if len(data.modalities) < 2:
        raise UsageError(
            f"{settings.model} needs two modalities or more, to teach one another; here is "
            f"{data.modalities[0].name} alone",
            "leave out --modality, or choose a model for one: m2, sdgm",
        )


def scores(trained: CoTrained[V], data: Data, *, every: bool = True) -> tuple[Score, ...]:
    """Measures on the test set for every subset of the modalities; for single ones alone where not `every`."""
    names = [modality.name for modality in data.modalities]
    test = data.examples[0].test
    label = data.label.cpu().numpy()[test]
    return tuple(
        score("+".join(given), "none" if len(given) == len(names) else "views", trained.log_q(given, test), label)
        for given in subsets(names)
        if every or len(given) == 1
    )


def evaluation(trained: CoTrained[V], data: Data) -> Evaluation:
    """The scores; there is no generative model, and so no ELBO."""
    return Evaluation(scores(trained, data), None)


def cotrain(run: Run, data: Data, system: System[V], progress: Progress) -> CoTrained[V]:
    """All rounds, from the last one that was saved, then the final fit.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; the rounds that were finished are saved.
    """
    settings, own = run.settings, data.examples[0]
    names = [modality.name for modality in data.modalities]
    known = data.label.cpu().numpy()
    done, taught = restore(run, names)
    metrics: list[dict[str, object]] = [dict(row) for row in run.metrics()[:done]]
    if len(metrics) < done:
        raise DataError(f"{run.folder} has lost the metrics of some rounds", "delete the folder to begin again")
    total = (settings.epochs + 1) * len(names) + 1
    views: dict[str, V] = {}

    def lesson(more: PseudoLabels) -> TrainingSet:
        rows = np.concatenate([own.labelled, more.rows])
        labels = np.concatenate([known[own.labelled], more.labels])
        order = rows.argsort()
        return TrainingSet(rows[order], labels[order])

    with stop_requests() as stop:

        def check() -> None:
            _raise_if_asked(stop, done, settings.epochs)

        def fit() -> None:
            for k, name in enumerate(names):
                if name not in views:
                    views[name] = system.fit(name, lesson(taught[name]), check)
                progress.step(done * len(names) + k + 1, total)
                check()

        while done < settings.epochs:
            fit()
            metrics.append(_record(done + 1, CoTrained(views, None), data, taught))
            for name, more in exchange(system, views, own.unlabelled, taught, settings, done).items():
                if len(more.rows):
                    taught[name] = merge([taught[name], more])
                    del views[name]  # what it has to learn has changed
            run.write_metrics(metrics)
            done += 1
            _save(run, done, taught)
            progress.epoch(done, settings.epochs, _summary(metrics[-1]))
        fit()
        fusion = system.fuse(views, lesson(merge(list(taught.values()))), check)
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
    """What each view is newly taught in a round."""
    has = {name: np.isin(unlabelled, own.rows) for name, own in taught.items()}
    # A view may teach what it was not taught itself, as long as one of the others can learn it.
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
    """The rows that a view would teach, `count` a class at most: each has the label that the view finds likeliest."""
    if len(rows) == 0:
        return PseudoLabels.nothing()
    log_q = view.log_q(rows)
    labels, sure = log_q.argmax(-1), np.exp(log_q.max(-1).astype(np.float64))
    chosen = []
    for k in range(log_q.shape[1]):
        of_class = np.flatnonzero(labels == k)
        surest = of_class[np.argsort(-sure[of_class], kind="stable")]
        if len(surest):
            chosen.append(np.searchsorted(rows, system.choose(view, rows[surest], count)))
    index = np.concatenate(chosen)
    return merge([PseudoLabels(rows[index], labels[index].astype(np.int64), sure[index])])


def merge(parts: Sequence[PseudoLabels]) -> PseudoLabels:
    """All of it, by rows ascending; of a row that occurs twice what its surest teacher said, the first of equals."""
    every = PseudoLabels(*(np.concatenate([getattr(part, own.name) for part in parts]) for own in fields(PseudoLabels)))
    every = every.of(np.argsort(-every.confidence, kind="stable"))
    return every.of(np.unique(every.rows, return_index=True)[1])


def restore(run: Run, names: Sequence[str]) -> tuple[int, dict[str, PseudoLabels]]:
    """The rounds that are saved, and what every view was taught in them."""
    checkpoint = run.read_checkpoint()
    if checkpoint is None:
        return 0, {name: PseudoLabels.nothing() for name in names}
    tensors = checkpoint.tensors
    taught = {
        name: PseudoLabels(*(tensors[f"{own.name} of {name}"].numpy() for own in fields(PseudoLabels)))
        if f"rows of {name}" in tensors
        else PseudoLabels.nothing()
        for name in names
    }
    return int(checkpoint.values["rounds"]), taught


def _save(run: Run, done: int, taught: Mapping[str, PseudoLabels]) -> None:
    tensors = {
        f"{own.name} of {name}": torch.from_numpy(getattr(more, own.name))
        for name, more in taught.items()
        if len(more.rows)
        for own in fields(PseudoLabels)
    }
    run.write_checkpoint(Checkpoint(tensors, {"rounds": done}))


def _record(round_: int, trained: CoTrained[V], data: Data, taught: Mapping[str, PseudoLabels]) -> dict[str, object]:
    """A line of metrics.csv: how much each view has been taught so far, and what it makes of it."""
    line: dict[str, object] = {"epoch": round_}
    line |= {f"taught {name}": len(more.rows) for name, more in taught.items()}
    return line | {f"accuracy {own.given}": f"{own.accuracy:.6f}" for own in scores(trained, data, every=False)}


def _summary(line: Mapping[str, object]) -> str:
    shown = {key.removeprefix("accuracy "): value for key, value in line.items() if key.startswith("accuracy ")}
    return ", ".join(f"{given} {100 * float(str(value)):.2f} %" for given, value in shown.items())


def _raise_if_asked(stop: Stop, done: int, rounds: int) -> None:
    if stop.requested:
        raise Interrupted(
            f"stopped by {stop.name} after {done} of {rounds} rounds; these are saved",
            "the same command goes on from there",
        )
