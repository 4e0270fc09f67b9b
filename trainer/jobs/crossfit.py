"""Runs that judge labels which they did not see: a run's settings again, each without another part of its labels."""

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Shard
from trainer.data.selection import parts_of_labels
from trainer.jobs.plan import Job
from trainer.jobs.stacks import PlannedRun
from trainer.training.run_folder import Run

FOLDER = ".doubts"  # within the folder of a run; hidden, so that lists of runs leave it out


def without_each_part(run: Run, shard: Shard, parts: int) -> list[PlannedRun]:
    """The runs that each leave out one of so many parts of a run's labels, in folders within its own.

    Args:
        shard: with the run's answers in it.

    Raises:
        UsageError: the run learns no labels, or no class has two.
    """
    settings = run.settings
    if not settings.maximises_bound or not settings.learns_labels:
        raise UsageError(
            f"{run.folder} holds {settings.model}, which {_WHY[settings.maximises_bound]}",
            "give a run of a model that learns labels, such as sshmvae-kl",
        )
    part, _ = parts_of_labels(settings, shard, parts)
    held = sorted(set(part.tolist()) - {-1})
    if not held:
        raise UsageError(
            f"{run.folder}: every label is the only one of its class, so none can be left out",
            "train on more labels: mmssl train ... --labels",
        )
    return [
        PlannedRun(
            Job(settings.model_copy(update={"held_out": (k, parts)}), shard),
            run.folder / FOLDER / f"part-{k}-of-{parts}",
        )
        for k in held
    ]


_WHY = {True: "learns no labels", False: "is here to be compared with and has no opinion of single rows"}
