"""Which frames of an image store train and test, and which keep their label: by a trial, or as they were imported."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.washington import official_name
from pipeline.datasets.washington_index import Index, index_names
from pipeline.datasets.washington_splits import labelled_ids, split_frames
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.images.store import MODALITIES, ImageModality, ImageStore, ImportedRows
from pipeline.runtime.errors import DataError
from pipeline.runtime.failures import Failures

_log = logging.getLogger(__name__)
# The paper's names: x is RGB, w is depth.
NAMES: dict[ImageModality, str] = {"rgb": "x", "depth": "w"}
OWN_NAMES: dict[ImageModality, str] = {"rgb": "rgb", "depth": "depth"}  # of imported data


@dataclass(frozen=True)
class RowPlan:
    """The frames of one shard, N of them, in the store's order.

    Attributes:
        split: its number; None for data without splits.
        classes: the K class names.
        labels: int64 `[N]`, a class index, or -1 where it is unknown.
        test: bool `[N]`, the test part.
        labelled: bool `[N]`, the frames whose label training may use.
        names: the shard's names of the modalities it holds.
        left_out: the trial: category -> the number of the object that is left out.
        groups: str `[N]`, what a split must not cut through, or None.
        rows: identifies what was imported with the frames; empty for a trial.
    """

    split: int | None
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    test: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    names: Mapping[ImageModality, str]
    left_out: Mapping[str, int]
    groups: NDArray[np.str_] | None = None
    rows: str = ""


def trial_plans(
    store: ImageStore, splits: Sequence[int], settings: FeatureSettings, failures: Failures
) -> list[RowPlan]:
    """A plan for each split of a store of the Washington layout; a split whose trial and frames disagree is collected.

    Raises:
        UsageError: there is no such split.
    """
    index = index_names(
        (official_name(sample, kind) for sample in store.ids for kind in ("crop", "depthcrop")), taken="all"
    )
    plans = []
    for split in splits:
        with failures.of(f"split {split}"):
            plans.append(_trial_plan(store, index, split, settings))
    return plans


def _trial_plan(store: ImageStore, index: Index, number: int, settings: FeatureSettings) -> RowPlan:
    split = split_frames(index, store.index.trials, number)
    test = {frame.id for frame in split.test}
    chosen = set(labelled_ids(split, settings.labelled, seed=settings.seed))
    category = {frame.id: index.categories.index(frame.category) for frame in index.frames}
    plan = RowPlan(
        number,
        index.categories,
        np.array([category[sample] for sample in store.ids], np.int64),
        np.array([sample in test for sample in store.ids]),
        np.array([sample in chosen for sample in store.ids]),
        NAMES,
        {name: out for name, out in store.index.trials[number].items() if name in index.categories},
    )
    _warn_of_missing_classes(plan, f"split {number}")
    return plan


def imported_plan(store: ImageStore, rows: ImportedRows, name: str) -> RowPlan:
    """The plan of an imported store: every labelled training frame keeps its label.

    Raises:
        DataError: the rows do not fit the frames.
    """
    for what, values in (("labels", rows.labels), ("groups", rows.groups), ("test", rows.test)):
        if len(values) != len(store.ids):
            raise DataError(f"{store.folder}: its index has {len(values)} {what} for {len(store.ids)} frames")
    beyond = [k for lacking in rows.lacking.values() for k in lacking if not 0 <= k < len(store.ids)]
    if beyond or not all(-1 <= label < len(rows.classes) for label in rows.labels):
        raise DataError(f"{store.folder}: its index names frames or classes that there are not", "import again")
    labels, test = np.array(rows.labels, np.int64), np.array(rows.test, np.bool_)
    labelled = (labels >= 0) & ~test
    names = {}
    for modality in MODALITIES:
        if (store.has(modality) & ~test).any():
            names[modality] = OWN_NAMES[modality]
        elif store.has(modality).any():
            _log.warning("%s: no training frame has %s, so it is left out", name, modality)
    nothing = np.flatnonzero(~np.logical_or.reduce([store.has(modality) for modality in names]))
    if nothing.size:
        raise DataError(f"{store.folder}: the frame {store.ids[nothing[0]]} has no modality that training frames have")
    plan = RowPlan(
        None,
        rows.classes,
        labels,
        test,
        labelled,
        names,
        {},
        np.array(rows.groups, np.str_) if any(rows.groups) else None,
        hashlib.sha256(rows.model_dump_json().encode()).hexdigest(),
    )
    _warn_of_missing_classes(plan, name)
    return plan


def _warn_of_missing_classes(plan: RowPlan, title: str) -> None:
    missing = sorted(set(range(len(plan.classes))) - set(plan.labels[plan.labelled].tolist()))
    if missing:
        _log.warning(
            "%s: among its %d labelled images there is none of %s",
            title,
            int(plan.labelled.sum()),
            ", ".join(plan.classes[k] for k in missing),
        )


def digest_of_labels(ids: Sequence[str], labels: NDArray[np.int64] | None = None) -> str:
    """Identifies labelled frames, and their labels if these are not told by the frames' names."""
    content = list(ids) if labels is None else [list(ids), labels.tolist()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
