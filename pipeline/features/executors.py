"""Computes units of extraction in this process or on a Dask cluster; one that fails does not stop the others."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping

from pipeline.features.feature_file import read_recipe
from pipeline.features.split_modality import ExtractionTask, Progress, compute, has_encoder
from pipeline.runtime.cluster import check_stop, distant_stop, on_worker, run_tasks
from pipeline.runtime.errors import DataError, MmsslError, TrainingError
from pipeline.runtime.failures import Failures
from pipeline.runtime.interrupts import Stop

_log = logging.getLogger(__name__)
_ON_CLUSTER = "units on the cluster"
Outcomes = Iterator[tuple[str, MmsslError | None]]


def compute_all(
    units: Mapping[str, ExtractionTask],
    stop: Stop,
    scheduler: str | None,
    progress: Progress | None,
    failures: Failures,
) -> Iterator[str]:
    """Computes units; yields the name of each once its file exists.

    Args:
        units: by name.
        stop: a request to stop, which reaches the workers too.
        scheduler: the address of a cluster's scheduler; None: in this process.
        progress: called at every step of a unit computed here, and for every unit that a cluster has finished.
        failures: takes the first error of each split; without that unit there will be no shard of the split.

    Raises:
        Interrupted: a stop was requested.
        DataError: the cluster cannot be reached or used, or is lost.
    """
    failed: set[int | None] = set()
    outcomes = (
        _here(units, stop, progress, failed) if scheduler is None else _on_cluster(units, stop, progress, scheduler)
    )
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
