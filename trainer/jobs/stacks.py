"""Runs to have, and the stacks in which they are trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.selection import choose_modalities, leaves_unlabelled
from trainer.jobs.plan import Job
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import CHECKPOINT, Run
from trainer.training.run_listing import RESULT


@dataclass(frozen=True)
class PlannedRun:
    """A run to have: what and on which shard, where it lies, and its rank; runs of a lower rank go first."""

    job: Job
    folder: Path
    rank: int = 0

    @property
    def done(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def begun(self) -> bool:
        return (self.folder / CHECKPOINT).exists()


@dataclass(frozen=True)
class Stack:
    """Runs that are trained in one pass; plain enough to be sent to another process."""

    settings: tuple[Settings, ...]
    shards: tuple[Path, ...]
    folders: tuple[Path, ...]
    cost: float

    def __str__(self) -> str:
        more = f" and {len(self.folders) - 1} more" if len(self.folders) > 1 else ""
        return f"{self.folders[0].name}{more}"


def make_stacks(work: Sequence[PlannedRun], stack: int) -> list[Stack]:
    """What is not done yet, in stacks of at most `stack` runs: what was begun first, then low ranks, then the cheap.

    Runs share a stack where `Settings.stack_key` allows it and their shards have equal modalities and classes. A group
    is cut into equal stacks, along the ranks, before finished runs are left out: runs that were stacked stay stacked,
    since the result depends on it in the last bits.
    """
    groups: dict[object, list[PlannedRun]] = {}
    for one in sorted(work, key=lambda one: one.rank):
        settings, shard = one.job.settings, one.job.shard
        kind = (choose_modalities(shard, settings.modalities), tuple(shard.classes), leaves_unlabelled(settings, shard))
        groups.setdefault((settings.stack_key(), kind), []).append(one)
    cut = []
    for group in groups.values():
        size = math.ceil(len(group) / math.ceil(len(group) / stack))
        cut += [group[start : start + size] for start in range(0, len(group), size)]
    found = [own for own in ([one for one in whole if not one.done] for whole in cut) if own]
    found.sort(key=lambda own: (not any(one.begun for one in own), own[0].rank, cost(own)))
    return [
        Stack(
            tuple(one.job.settings for one in own),
            tuple(one.job.shard.path.resolve() for one in own),
            tuple(one.folder.resolve() for one in own),
            cost(own),
        )
        for own in found
    ]


def cost(work: Sequence[PlannedRun]) -> float:
    """About how long runs take, in units of its own: to order them, and to guess the time that is left."""
    total = 0.0
    for one in work:
        settings, shard = one.job.settings, one.job.shard
        width = sum(modality.width for modality in choose_modalities(shard, settings.modalities))
        total += settings.epochs * shard.train.rows * (width + 2000)  # the networks between cost as if so much wider
    return total


def status(work: PlannedRun) -> str:
    """`done`, `begun, 3 of 500 epochs`, or `to do`."""
    if work.done:
        return "done"
    if not work.begun:
        return "to do"
    run = Run(work.folder, work.job.settings)
    return f"begun, {len(run.metrics())} of {work.job.settings.epochs} epochs"
