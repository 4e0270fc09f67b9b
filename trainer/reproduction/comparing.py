"""Our models and their rivals on one data set: what to train and fit, and the comparison that comes of it.

Our models, and the rival that is one of the paper's systems, are ordinary runs. Every other rival's scores are kept in
a file of their own, so that the same comparison resumes, and a larger one uses them again.
"""

import hashlib
import json
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from pipeline.runtime.errors import DataError, TrainingError, UsageError
from pipeline.runtime.files import write_atomically
from pipeline.runtime.interrupts import check_stop, stop_requests
from pipeline.runtime.text import file_name
from pipeline.runtime.versions import versions
from pipeline.shards.shard import Shard
from trainer.baselines.rival_task import Task, load_task, singles_and_all, size_of
from trainer.baselines.rivals import PATIENT, RIVALS, Rival, RivalScores, measure, reason_to_leave_out, rival_names
from trainer.data.selection import choose_labelled, choose_modalities
from trainer.evaluation.metrics import Score
from trainer.jobs.environment import environment
from trainer.jobs.plan import Job, folders_of, plan
from trainer.jobs.stacks import PlannedRun
from trainer.models.registry import card
from trainer.reporting.rival_comparison import (
    KEPT_SCORES,
    ComparedSystem,
    LeftOut,
    Level,
    MeasuredMean,
    PairedDifference,
    RivalComparison,
    sentences,
)
from trainer.settings.run_settings import Settings

_log = logging.getLogger(__name__)
_FORMAT = 1  # of a rival's file; raised when a rival's fixed settings change
Labels = int | Literal["all", "shard"]


@dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        labels: numbers of labels; None stands for the data's own: the shard's marks, or the preset's number.
        seeds: one replica each, for every shard.
        models: our models.
        presets: their presets; the last one is what rivals are measured against.
        rivals: the rivals' names.
        modalities: those that all systems see; empty for all.
        values: settings of our models that replace the presets'.
    """

    labels: tuple[Labels | None, ...]
    seeds: tuple[int, ...]
    models: tuple[str, ...]
    presets: tuple[str, ...]
    rivals: tuple[str, ...]
    modalities: tuple[str, ...]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class RivalFit:
    """One rival on the data of one replica, and the file that keeps its scores."""

    rival: Rival
    job: Job
    path: Path


@dataclass(frozen=True)
class System:
    """A system with one number of labels: the runs or the fits of its replicas, in the same order for all systems."""

    name: str
    title: str
    ours: bool
    runs: tuple[PlannedRun, ...] = ()
    fits: tuple[RivalFit, ...] = ()


@dataclass(frozen=True)
class PlannedLevel:
    """The systems with one number of labels; `jobs` are the replicas' settings and shards."""

    labels: Labels
    jobs: tuple[Job, ...]
    systems: tuple[System, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class ComparisonPlan:
    """All that a comparison needs.

    Attributes:
        data: the data set's name.
        given: each modality alone, then all together.
        folder: where the rivals' files lie, and by default the comparison.
        recommended: the names of our models with the recommended settings.
    """

    data: str
    given: tuple[str, ...]
    folder: Path
    recommended: tuple[str, ...]
    levels: tuple[PlannedLevel, ...]

    def runs(self) -> list[PlannedRun]:
        """All runs, those of the first replicas first."""
        return [run for level in self.levels for system in level.systems for run in system.runs]

    def fits(self) -> list[RivalFit]:
        """All fits of rivals that are not runs."""
        return [fit for level in self.levels for system in level.systems for fit in system.fits]


def choose_rivals(names: Sequence[str] | None) -> tuple[str, ...]:
    """The rivals of these names, in the order of tables; all of them for None.

    Raises:
        UsageError: there is no such rival.
    """
    known = rival_names()
    for name in names or ():
        if name not in known:
            raise UsageError(f"there is no rival '{name}'", f"rivals: {', '.join(known)}")
    return tuple(name for name in known if names is None or name in names)


def plan_comparison(request: Request, shards: Sequence[Shard], workspace: Path) -> ComparisonPlan:
    """Plans a comparison on a shard, or on one shard per split.

    Raises:
        UsageError: a model, a setting or a number of labels does not fit.
        DataError: a class has fewer examples than labels are asked for, or a shard has no labelled test example.
    """
    for shard in shards:
        if not (shard.test.labels >= 0).any():
            raise DataError(
                f"{shard.path}: has no labelled test example to compare on",
                "import it again with a test part: mmssl data import ... --test 0.2",
            )
    modalities = tuple(modality.name for modality in choose_modalities(shards[0], request.modalities))
    name = file_name("-".join([shards[0].dataset, *request.modalities]))
    folder = workspace / "comparisons" / name
    levels = [_plan_level(request, labels, shards, workspace / "runs", folder) for labels in request.labels]
    return ComparisonPlan(
        data=shards[0].dataset,
        given=tuple("+".join(given) for given in singles_and_all(modalities) if _is_measured(shards, given)),
        folder=folder,
        recommended=tuple(f"{model} {request.presets[-1]}" for model in request.models),
        levels=tuple(levels),
    )


def _is_measured(shards: Sequence[Shard], given: Sequence[str]) -> bool:
    """Whether every shard has a labelled test example with any of these modalities."""
    return all(
        (np.any([shard.test.has(name) for name in given], axis=0) & (shard.test.labels >= 0)).any() for shard in shards
    )


def _plan_level(
    request: Request, labels: Labels | None, shards: Sequence[Shard], runs: Path, folder: Path
) -> PlannedLevel:
    seen: dict[str, Any] = {} if labels is None else {"labels": labels}
    if request.modalities:
        seen["modalities"] = request.modalities

    def planned(model: str, preset: str | None, values: Mapping[str, Any]) -> tuple[PlannedRun, ...]:
        jobs = plan(model, shards, preset=preset, values=values, seeds=request.seeds)
        return tuple(PlannedRun(job, path) for job, path in zip(jobs, folders_of(jobs, None, runs), strict=True))

    systems = [
        System(
            f"{model} {preset}",
            f"{card(model).title} ({preset})",
            True,
            runs=planned(model, preset, {**request.values, **seen}),
        )
        for model in request.models
        for preset in request.presets
    ]
    jobs = tuple(run.job for run in systems[0].runs)
    largest = max((size_of(job.settings, job.shard) for job in jobs), key=lambda size: (size.rows, size.labelled))
    left_out = []
    for rival in (rival for rival in RIVALS if rival.name in request.rivals):
        reason = reason_to_leave_out(rival, largest, PATIENT)
        if reason is not None:
            left_out.append(LeftOut(title=rival.title, reason=reason))
        elif rival.model is not None:
            systems.append(System(rival.name, rival.title, False, runs=planned(rival.model, None, seen)))
        else:
            fits = tuple(RivalFit(rival, job, folder / "rivals" / _file_name(rival, job.settings)) for job in jobs)
            systems.append(System(rival.name, rival.title, False, fits=fits))
    return PlannedLevel(jobs[0].settings.labels, jobs, tuple(systems), tuple(left_out))


# --- the rivals' files -----------------------------------------------------------------------------------------------


def _identity(rival: Rival, settings: Settings) -> dict[str, Any]:
    """What a rival's scores depend on."""
    identity = {
        "kind": KEPT_SCORES,
        "format": _FORMAT,
        "rival": rival.name,
        "data": settings.data,
        "digest": settings.digest,
        "modalities": list(settings.modalities),
        "labels": settings.labels,
        "split": settings.split,
        "seed": settings.seed,
    }
    if settings.answers:
        identity["answers"] = [list(answer) for answer in settings.answers]
    return identity


def _file_name(rival: Rival, settings: Settings) -> str:
    identity = json.dumps(_identity(rival, settings))
    split = "" if settings.split is None else f"-split-{settings.split}"
    unique = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return f"{rival.name}-labels-{settings.labels}{split}-seed-{settings.seed}-{unique}.json"


def read_fit(fit: RivalFit) -> RivalScores | None:
    """The scores that a rival's file keeps; None if there is no such file, or if it is damaged (with a warning)."""
    try:
        values = json.loads(fit.path.read_text(encoding="utf-8"))
        if any(values[key] != value for key, value in _identity(fit.rival, fit.job.settings).items()):
            raise ValueError("it is about something else")
        return RivalScores(tuple(Score(**score) for score in values["scores"]), float(values["seconds"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning("%s cannot be used and is computed again: %s", fit.path, error)
        return None


def fit_rivals(fits: Sequence[RivalFit], device: torch.device, progress: Callable[[int, int], None]) -> dict[Path, str]:
    """Computes and keeps the scores of rivals that have no file yet; by their files, why others could not be fitted.

    Args:
        progress: called after each with the number done and the number to do.

    Raises:
        Interrupted: SIGTERM or Ctrl-C was received; what is computed is kept.
    """
    todo = [fit for fit in fits if read_fit(fit) is None]
    failed: dict[Path, str] = {}
    task: Task | None = None
    loaded: object = None
    todo.sort(key=_task_key)  # each replica's data is read once
    for done, fit in enumerate(todo, 1):
        if task is None or loaded != _task_key(fit):
            with stop_requests() as stop:  # an exception in the middle of a read might be swallowed by HDF5
                task, loaded = load_task(fit.job.settings, fit.job.shard, device), _task_key(fit)
            check_stop(stop)
        try:
            measured = measure(fit.rival, task)
        except TrainingError as error:
            _log.warning("%s", error.message)
            failed[fit.path] = error.message
        else:
            content = _identity(fit.rival, fit.job.settings) | {
                "scores": [asdict(score) for score in measured.scores],
                "seconds": measured.seconds,
                "versions": versions("numpy", "torch", "scikit-learn"),
            }
            write_atomically(fit.path, json.dumps(content, indent=2) + "\n")
        progress(done, len(todo))
    return failed


def _task_key(fit: RivalFit) -> tuple[str, str, int, object]:
    settings = fit.job.settings
    return fit.job.shard.digest, str(settings.labels), settings.seed, settings.answers


# --- the comparison --------------------------------------------------------------------------------------------------


def compare(
    planned: ComparisonPlan, device: torch.device, failed: Mapping[Path, str] = MappingProxyType({})
) -> RivalComparison:
    """The comparison of finished runs and kept scores.

    Args:
        failed: as `fit_rivals` gives it; a rival that failed on a replica is left out.

    Raises:
        DataError: a run is not done, or its result is damaged.
    """
    jobs = planned.levels[0].jobs
    comparison = RivalComparison(
        data=planned.data,
        given=planned.given,
        replicas=tuple((job.settings.split, job.settings.seed) for job in jobs),
        recommended=planned.recommended,
        levels=tuple(_level(level, planned, failed) for level in planned.levels),
        provenance=environment(device),
    )
    return comparison.model_copy(update={"sentences": sentences(comparison)})


def _level(level: PlannedLevel, planned: ComparisonPlan, failed: Mapping[Path, str]) -> Level:
    why = {system.title: failed[fit.path] for system in level.systems for fit in system.fits if fit.path in failed}
    systems = tuple(_measured(system, planned.given) for system in level.systems if system.title not in why)
    by_name = {system.name: system for system in systems}
    differences = [
        PairedDifference(
            rival=rival.name,
            ours=name,
            given=given,
            difference=MeasuredMean.of(
                [
                    theirs - ours
                    for theirs, ours in zip(
                        rival.accuracy[given].values, by_name[name].accuracy[given].values, strict=True
                    )
                ]
            ),
        )
        for rival in systems
        if not rival.ours
        for name in planned.recommended
        for given in planned.given
    ]
    return Level(
        labels=level.labels,
        count=statistics.fmean(len(choose_labelled(job.settings, job.shard)) for job in level.jobs),
        systems=systems,
        differences=tuple(differences),
        left_out=level.left_out + tuple(LeftOut(title=title, reason=reason) for title, reason in why.items()),
    )


def _measured(system: System, given: Sequence[str]) -> ComparedSystem:
    if system.runs:
        measured = [_of_run(run) for run in system.runs]
    else:
        kept = [read_fit(fit) for fit in system.fits]
        measured = [scores for scores in kept if scores is not None]
        assert len(measured) == len(kept), f"{system.name} has no scores yet"
    first = [{score.given: score for score in reversed(of_replica.scores)} for of_replica in measured]
    everything = [by_given[given[-1]] for by_given in first]
    return ComparedSystem(
        name=system.name,
        title=system.title,
        ours=system.ours,
        accuracy={column: MeasuredMean.of([100 * by_given[column].accuracy for by_given in first]) for column in given},
        nll=statistics.fmean(score.nll for score in everything),
        ece=statistics.fmean(score.ece for score in everything),
        seconds=statistics.fmean(of_replica.seconds for of_replica in measured),
    )


def _of_run(run: PlannedRun) -> RivalScores:
    """A finished run's scores (of several completions the model's first), and its share of its stack's seconds."""
    provenance = run.run.provenance()
    seconds = float(provenance["seconds of the last sitting"]) / int(provenance.get("runs in the stack", 1))
    return RivalScores(run.run.result().scores, seconds)
