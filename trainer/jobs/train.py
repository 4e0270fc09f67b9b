"""Trains many runs at once: stackable ones in one pass; finished runs are left alone, interrupted ones resume."""

import logging
import math
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from pipeline.runtime.errors import TrainingError
from pipeline.runtime.files import sweep
from pipeline.runtime.leases import lease, remove_stale
from pipeline.shards.shard import Shard
from trainer.data.streaming import load
from trainer.evaluation.metrics import Evaluation
from trainer.inference.loading import load_run
from trainer.jobs.environment import environment
from trainer.jobs.plan import Job
from trainer.jobs.stacks import kind, largest_stack
from trainer.training.method import method_of
from trainer.training.precision import chosen_precision
from trainer.training.progress import Progress
from trainer.training.run_folder import PROPOSED, Checkpoint, Run
from trainer.training.terms import LOWER_RATE
from trainer.training.threads import threads

_log = logging.getLogger(__name__)


def train_all(
    jobs: Sequence[Job], folders: Sequence[Path], device: torch.device, progress: Progress, stack: int | None = None
) -> list[Run]:
    """Trains and evaluates every job that is not done yet, at most `stack` replicas in one pass.

    Args:
        folders: one per job.
        stack: None for `largest_stack`.

    Returns:
        The runs, all done, in the order of the jobs.

    Raises:
        LeasedError: another process is training one of them.
        MmsslError: an error in one stack stops all; what was saved is kept.
    """
    runs = [Run.prepare(folder, job.settings) for folder, job in zip(folders, jobs, strict=True)]
    shards = {id(run): job.shard for run, job in zip(runs, jobs, strict=True)}
    open_runs = [run for run in runs if not run.done]
    remove_leftovers(folders)
    if len(open_runs) < len(runs):
        _log.info("%d of %d runs are done already", len(runs) - len(open_runs), len(runs))
    with lease(*(run.folder for run in open_runs), folders=True) as held:
        for run in open_runs:
            run.lease = held
        recover_stacks([run for run in open_runs if not run.done])
        _train_open([run for run in open_runs if not run.done], shards, device, progress, stack)
    return runs


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Removes what killed processes of this machine left in the folders of runs or tables, even finished ones."""
    for folder in folders:
        remove_stale(folder)
        sweep(folder)


def recover_stacks(runs: Sequence[Run]) -> None:
    """Completes or undoes what stacks were doing when their process was killed.

    Either every run of a stack gets its new checkpoint or none does, and a stack is done once all of its runs are
    evaluated.

    Args:
        runs: leased, and not done.
    """
    by_name = {run.settings.fingerprint(): run for run in runs}

    def stack(checkpoint: Checkpoint | None) -> list[Run]:
        names = checkpoint.values.get("stack", []) if checkpoint else []
        return [by_name[name] for name in names if name in by_name]

    evaluated = [run for run in runs if run.evaluated]
    for run in [run for run in evaluated if all(mate.evaluated for mate in stack(run.read_checkpoint()))]:
        run.conclude()

    proposals = {run: proposal for run in runs if (proposal := run.read_checkpoint(PROPOSED)) is not None}

    def reached(run: Run, step: int) -> bool:
        checkpoints = (proposals.get(run), run.read_checkpoint())
        return any(checkpoint is not None and checkpoint.values["step"] == step for checkpoint in checkpoints)

    complete = {
        run
        for run, proposal in proposals.items()
        if all(reached(mate, proposal.values["step"]) for mate in stack(proposal))
    }
    for run in proposals:
        if run in complete:
            run.accept_checkpoint()
        else:
            run.discard_proposal()


def _train_open(
    open_runs: Sequence[Run], shards: Mapping[int, Shard], device: torch.device, progress: Progress, stack: int | None
) -> None:
    groups: dict[Hashable, list[Run]] = {}
    for run in open_runs:
        checkpoint = run.read_checkpoint()
        values = checkpoint.values if checkpoint else {}
        position = (int(values.get("step", 0)), int(values.get("per_epoch", 0)))
        groups.setdefault((kind(run.settings, shards[id(run)]), position), []).append(run)
    for group in groups.values():
        settings = group[0].settings
        limit = stack or largest_stack(settings, device.type == "cuda")
        size = limit if method_of(settings).stacks else 1
        for start in range(0, len(group), size):
            stacked = group[start : start + size]
            _train_stack(stacked, [shards[id(run)] for run in stacked], device, progress)


def _train_stack(runs: Sequence[Run], shards: Sequence[Shard], device: torch.device, progress: Progress) -> None:
    begun, clock = datetime.now(UTC), time.monotonic()
    settings = runs[0].settings
    method = method_of(settings)
    data = load([run.settings for run in runs], shards, device)
    method.check(settings, data)
    chosen = chosen_precision(settings, device)
    if settings.precision == "auto" and chosen == "bf16":
        _log.info("matrix products in bfloat16, which this processor multiplies fast (float32: --set precision=fp32)")
    for run, examples in zip(runs, data.examples, strict=True):
        run.begin(examples.labelled_ids)
    with threads(settings, device):
        trained, used = method.train(runs, data, device, progress), torch.get_num_threads()
    for run, result in zip(runs, trained, strict=True):
        _raise_if_not_finite(run, result.evaluation)
    for run, shard, result in zip(runs, shards, trained, strict=True):
        run.write_weights(result.weights)
        run.write_provenance(
            {
                **environment(device),
                "threads": used,
                "shard": str(shard.path.resolve()),
                **result.provenance,
                "begun": begun.isoformat(timespec="seconds"),
                "precision": chosen,
                "runs in the stack": len(runs),
                "seconds of the last sitting": round(time.monotonic() - clock, 3),
            }
        )
        run.write_evaluation(result.evaluation)
    for run in runs:
        run.conclude()


def _raise_if_not_finite(run: Run, result: Evaluation) -> None:
    if not all(map(math.isfinite, (result.elbo or 0.0, *(score.nll for score in result.scores)))):
        raise TrainingError(f"the trained model in {run.folder} gives scores that are not finite", LOWER_RATE)


def evaluate_run(
    run: Run, device: torch.device, *, iterations: int | None = None, samples: int | None = None
) -> Evaluation:
    """Computes a finished run's scores again from its weights.

    Raises:
        DataError: the run is not done, or its shard is missing or not the one it was trained on.
    """
    return load_run(run, device).trained.evaluate(iterations=iterations, samples=samples)
