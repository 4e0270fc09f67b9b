"""Planned runs, and the stacks in which they are trained."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.failures import Failures
from pipeline.shards.shard import Shard
from trainer.data.selection import check_examples, choose_modalities, leaves_unlabelled
from trainer.jobs.plan import Job
from trainer.settings.run_settings import Settings
from trainer.settings.widths import is_narrow
from trainer.training.run_folder import Run

MOST = 16  # runs in a stack
_INNER_WIDTH = 2000  # the networks' inner layers cost about as much as so many more input features


@dataclass(frozen=True)
class PlannedRun:
    """A run to train: its job, its folder, and its rank; runs of a lower rank go first."""

    job: Job
    folder: Path
    rank: int = 0

    @property
    def run(self) -> Run:
        """The run itself, as far as it is."""
        return Run(self.folder, self.job.settings)

    @property
    def done(self) -> bool:
        """Whether the run has its result."""
        return self.run.done

    @property
    def begun(self) -> bool:
        """Whether the run has a checkpoint."""
        return self.run.begun


@dataclass(frozen=True)
class Stack:
    """Runs that are trained in one pass; simple enough to be sent to another process.

    Attributes:
        cost: about how long it takes, in arbitrary units (`cost`).
    """

    settings: tuple[Settings, ...]
    shards: tuple[Path, ...]
    folders: tuple[Path, ...]
    cost: float

    def __str__(self) -> str:
        others = f" and {len(self.folders) - 1} more" if len(self.folders) > 1 else ""
        return f"{self.folders[0].name}{others}"

    def single_runs(self) -> list["Stack"]:
        """Each run as a stack of its own."""
        share = self.cost / len(self.folders)
        return [
            Stack((settings,), (shard,), (folder,), share)
            for settings, shard, folder in zip(self.settings, self.shards, self.folders, strict=True)
        ]

    @staticmethod
    def of(stacks: Sequence["Stack"]) -> "Stack":
        """The runs of several stacks in one."""
        return Stack(
            tuple(settings for stack in stacks for settings in stack.settings),
            tuple(shard for stack in stacks for shard in stack.shards),
            tuple(folder for stack in stacks for folder in stack.folders),
            sum(stack.cost for stack in stacks),
        )


def usable(work: Sequence[PlannedRun], failures: Failures) -> list[PlannedRun]:
    """The runs whose folder and data are as they should be; the others are collected, so that they do not stop these.

    Raises:
        UsageError: a setting fits no data.
    """
    good = []
    for run in work:
        with failures.of(run.folder.name):
            Run.prepare(run.folder, run.job.settings)  # refuses a folder that holds something else
            check_examples(run.job.settings, run.job.shard)
            good.append(run)
    return good


def largest_stack(settings: Settings, gpu: bool) -> int:
    """How many runs with these settings are best trained in one pass.

    One small network leaves a GPU idle. A CPU spends half of a step on starting operations if layers are narrow, which
    a stack does once for all of its runs; wide layers keep it busy, and several of them only crowd its cache
    (results/2026-11-28-stacks-cpu/README.md).
    """
    return MOST if gpu or is_narrow(settings) else 1


def kind(settings: Settings, shard: Shard) -> Hashable:
    """What runs that share a stack have in common: all settings but a run's own, modalities, classes, which parts.

    Raises:
        UsageError: the settings name a modality that the shard does not have.
    """
    modalities, classes = choose_modalities(shard, settings.modalities), tuple(shard.classes)
    return settings.stack_key(), modalities, classes, leaves_unlabelled(settings, shard), shard.test.rows > 0


def make_stacks(
    work: Sequence[PlannedRun], most: int | None = None, *, gpu: bool = False, jobs: int = 1
) -> list[Stack]:
    """Puts the unfinished runs into stacks: begun ones first, then by rank, then the cheapest.

    Runs of one `kind` share a stack. A group is
    cut into equal stacks, in order of rank, before finished runs are left out: runs that were stacked stay stacked,
    since the result depends on it: in the last bits, and in the number of steps where shards differ in their rows
    (docs/design/deviations.md, 20).

    Args:
        most: how many runs a stack may hold; None for `largest_stack`, or fewer if some of the processes would have
            nothing to do.
        gpu: whether they are trained on a GPU, or on a cluster, whose devices are not known here.
        jobs: the number of processes that train at once.
    """
    groups: dict[Hashable, list[PlannedRun]] = {}
    for run in sorted(work, key=lambda run: run.rank):
        settings, shard = run.job.settings, run.job.shard
        groups.setdefault(kind(settings, shard), []).append(run)
    planned = []
    for group in groups.values():
        number = math.ceil(len(group) / (most or largest_stack(group[0].job.settings, gpu)))
        if most is None:
            number = max(number, min(jobs, len(group)))
        size = math.ceil(len(group) / number)
        planned += [group[start : start + size] for start in range(0, len(group), size)]
    remaining = [[run for run in runs if not run.done] for runs in planned]
    unfinished = [runs for runs in remaining if runs]
    unfinished.sort(key=lambda runs: (not any(run.begun for run in runs), runs[0].rank, cost(runs)))
    return [
        Stack(
            tuple(run.job.settings for run in runs),
            tuple(run.job.shard.path.resolve() for run in runs),
            tuple(run.folder.resolve() for run in runs),
            cost(runs),
        )
        for runs in unfinished
    ]


def cost(work: Sequence[PlannedRun]) -> float:
    """About how long runs take, in arbitrary units: to order them, and to estimate the time left."""
    total = 0.0
    for run in work:
        settings, shard = run.job.settings, run.job.shard
        width = sum(modality.width for modality in choose_modalities(shard, settings.modalities))
        total += settings.epochs * shard.train.rows * (width + _INNER_WIDTH)
    return total


def status(work: PlannedRun) -> str:
    """How far a planned run is: `done`, `begun, 3 of 500 epochs`, or `to do`."""
    if work.done:
        return "done"
    if not work.begun:
        return "to do"
    return f"begun, {len(work.run.metrics())} of {work.job.settings.epochs} epochs"
