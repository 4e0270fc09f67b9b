"""Computes units of extraction here, in several processes, or on a Dask cluster; a failure does not stop the others."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping

import torch

from pipeline.features.feature_file import read_recipe
from pipeline.features.split_modality import ExtractionTask, Progress, compute, has_encoder
from pipeline.runtime.cluster import distant_stop, on_worker, run_tasks
from pipeline.runtime.errors import DataError, MmsslError, TrainingError
from pipeline.runtime.failures import Failures
from pipeline.runtime.interrupts import Stop, check_stop, stop_requests
from pipeline.runtime.side_by_side import side_by_side, unless_orphaned

_log = logging.getLogger(__name__)
_ON_CLUSTER = "units on the cluster"
_SIDE_BY_SIDE = "units"
Outcomes = Iterator[tuple[str, MmsslError | None]]


def compute_all(
    units: Mapping[str, ExtractionTask],
    stop: Stop,
    scheduler: str | None,
    jobs: int,
    progress: Progress | None,
    failures: Failures,
) -> Iterator[str]:
    """Computes units; yields the name of each once its file exists.

    Args:
        units: by name.
        stop: a request to stop, which reaches the workers too.
        scheduler: the address of a cluster's scheduler; None: on this machine.
        jobs: the number of processes of this machine; 1: in this process.
        progress: called at every step of a unit computed in this process, and for every unit finished elsewhere.
        failures: takes the first error of each split; without that unit there will be no shard of the split.

    Raises:
        Interrupted: a stop was requested.
        DataError: the cluster cannot be reached or used, or is lost.
    """
    failed: set[int | None] = set()
    if scheduler is not None:
        outcomes = _on_cluster(units, stop, progress, scheduler)
    elif jobs > 1 and len(units) > 1:
        outcomes = _side_by_side(units, stop, progress, failed, jobs)
    else:
        outcomes = _here(units, stop, progress, failed)
    done = 0
    for key, error in outcomes:
        split = units[key].split
        if error is None:
            done += 1
            _log.info("%s: done, %d of %d", key, done, len(units))
            yield key
        elif split not in failed:
            failed.add(split)
            with failures.of(key):
                raise error
        else:
            _log.error("%s is left out: %s", key, error.message)


def _here(
    units: Mapping[str, ExtractionTask], stop: Stop, progress: Progress | None, failed: Collection[int | None]
) -> Outcomes:
    """One unit after another, without those of failed splits."""
    for key, unit in units.items():
        if unit.split not in failed:
            yield key, _attempt(unit, lambda: check_stop(stop), progress)


def _side_by_side(
    units: Mapping[str, ExtractionTask],
    stop: Stop,
    progress: Progress | None,
    failed: Collection[int | None],
    jobs: int,
) -> Outcomes:
    if progress is not None:
        progress(_SIDE_BY_SIDE, 0, len(units))
    outcomes = side_by_side(
        _in_process, ((key, (unit,)) for key, unit in units.items() if unit.split not in failed), stop,
        processes=min(jobs, len(units)), threads=torch.get_num_threads(), if_died=_died,
    )  # fmt: skip
    for count, outcome in enumerate(outcomes, start=1):
        if progress is not None:
            progress(_SIDE_BY_SIDE, count, len(units))
        yield outcome


def _on_cluster(units: Mapping[str, ExtractionTask], stop: Stop, progress: Progress | None, scheduler: str) -> Outcomes:
    if progress is not None:
        progress(_ON_CLUSTER, 0, len(units))
    outcomes = run_tasks(
        _on_worker, {key: (unit,) for key, unit in units.items()}, stop, scheduler=scheduler, resource="GPU",
        announce=True, shared=sorted({unit.store for unit in units.values()}), if_died=lambda error: error,
    )  # fmt: skip
    for count, outcome in enumerate(outcomes, start=1):
        if progress is not None:
            progress(_ON_CLUSTER, count, len(units))
        yield outcome


def _in_process(unit: ExtractionTask) -> MmsslError | None:
    still_wanted = unless_orphaned()
    with stop_requests() as stop:

        def check() -> None:
            check_stop(stop)
            still_wanted()

        return _attempt(unit, check)


def _died(key: str) -> MmsslError:
    return DataError(
        f"the process that computed {key} died",
        "check that there is enough memory (--jobs 1 needs least), then run the same command again",
    )


def _on_worker(unit: ExtractionTask, event: str) -> MmsslError | None:
    with on_worker(unit.store):
        return _attempt(unit, distant_stop(event))


def _attempt(unit: ExtractionTask, stop: Callable[[], None], progress: Progress | None = None) -> MmsslError | None:
    """Computes a unit unless another process has made it since we last looked; returns the error that is its own."""
    try:
        if not _is_made(unit):
            compute(unit, stop, progress)
    except (DataError, TrainingError) as error:
        return error
    return None


def _is_made(unit: ExtractionTask) -> bool:
    try:
        made = unit.path.exists() and read_recipe(unit.path) == unit.recipe
        return made and (not unit.keep or has_encoder(unit))
    except DataError:
        return False
