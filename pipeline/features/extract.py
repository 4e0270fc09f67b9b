"""From the image store to feature shards: a pair (split, modality) is the unit of work, and of resuming after a stop.

A unit fine-tunes VGG16 on its split's labelled images and then computes fc1 of every image, which is stored in
`features/<name>/split-<k>-<modality>.h5`. Once both units of a split exist, its shard is written. Units run one after
another in this process, or as Dask tasks on a cluster whose workers see the same workspace.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.locations import SAMPLE
from pipeline.datasets.washington import Index, index_names
from pipeline.datasets.washington_splits import labelled_ids, split_frames
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.features.split_modality import (
    ExtractionTask,
    Progress,
    check_recipe,
    compute,
    is_complete,
    read_recipe,
    read_rows,
)
from pipeline.features.vgg import Weights
from pipeline.images.preprocess import store_folder
from pipeline.images.store import MODALITIES, ImageModality, ImageSettings, ImageStore
from pipeline.runtime import hdf5
from pipeline.runtime.cluster import check_stop, distant_stop, on_worker, run_tasks
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.files import remove, sweep
from pipeline.runtime.interrupts import Stop, stop_requests
from pipeline.runtime.leases import lease, remove_stale
from pipeline.runtime.versions import versions
from pipeline.shards.schema import VALIDATION
from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData, write_shard

_log = logging.getLogger(__name__)
# The paper's names: x is RGB, w is depth.
NAMES: dict[ImageModality, str] = {"rgb": "x", "depth": "w"}
FEATURE = "VGG16's first fully connected layer after its ReLU (classifier[0:2])"
_ON_CLUSTER = "units on the cluster"


@dataclass(frozen=True)
class SplitPlan:
    """One split: all labels, which samples are for testing, and which keep their label; in the store's order."""

    split: int
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    test: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Extraction:
    """What all units of a command have in common."""

    store: ImageStore
    settings: FeatureSettings
    weights: Weights
    folder: Path
    device: str

    def recipe(self, task: SplitPlan) -> dict[str, Any]:
        """Identifies the results of a split, whoever computed them."""
        return {
            "images": self.store.digest,
            "weights": self.weights.sha256 or self.weights.name,
            "settings": self.settings.model_dump(),
            "split": task.split,
            "left out": dict(task.left_out),
            "labelled": hashlib.sha256(json.dumps(self._labelled(task)).encode()).hexdigest(),
        }

    def unit(self, task: SplitPlan, modality: ImageModality) -> ExtractionTask:
        """The unit of work for one modality of a split."""
        return ExtractionTask(
            store=self.store.folder.resolve(),
            path=self.folder / f"split-{task.split}-{modality}.h5",
            split=task.split,
            modality=modality,
            classes=len(task.classes),
            labelled=tuple(self._labelled(task)),
            labels=task.labels[task.labelled],
            settings=self.settings,
            weights=self.weights,
            device=self.device,
            recipe=self.recipe(task) | {"modality": modality},
        )

    def _labelled(self, task: SplitPlan) -> list[str]:
        return [sample for sample, labelled in zip(self.store.ids, task.labelled, strict=True) if labelled]


def shard_path(root: Path, name: str, split: int) -> Path:
    """The path of a split's shard."""
    return root / "shards" / f"{name}-split-{split}.h5"


def default_name(dataset: str, images: ImageSettings) -> str:
    """The name of shards if the user gives none: `rgbd`, `rgbd-normals`, `rgbd-sample-64`, ..."""
    return f"{dataset}{images.suffix}"


def extract(
    dataset: str,
    root: Path,
    splits: Sequence[int],
    images: ImageSettings,
    settings: FeatureSettings,
    *,
    weights: str = "imagenet",
    modalities: Sequence[str] = MODALITIES,
    name: str | None = None,
    device: str = "auto",
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Makes the feature shards of some splits, keeping those that exist and pass verification.

    Args:
        root: the workspace; with a scheduler, a folder that its workers see under the same path.
        modalities: those to compute; a shard is written once all modalities exist, computed now or before.
        name: of the shards and of the folder of units; allows several settings side by side.
        progress: called at every step of a unit computed here, and for every unit that a cluster has finished; without
            it the log reports progress.

    Returns:
        The shards that exist now, in the order of the splits.

    Raises:
        UsageError: no such split, modality or device, or a name that cannot be a file's.
        DataError: no image store, unusable weights, or results of other settings under this name.
        LeasedError: another process is computing one of them.
        StorageError: the disk is full or refuses.
        Interrupted: SIGTERM or Ctrl-C; the same command resumes.
    """
    chosen = _modalities(modalities)
    store = ImageStore.open(store_folder(dataset, root, images))
    name = name or default_name(dataset, images)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise UsageError(f"--name {name}: a name has letters, digits, '.', '_' and '-' alone")
    if name.endswith(VALIDATION):
        raise UsageError(f"--name {name}: names that end in {VALIDATION} are for validation parts")
    index = _index(store)
    if scheduler is None:
        choose_device(device)  # a missing device is reported before the work begins
    folder = (root / "features" / name).resolve()
    work = Extraction(store, settings, Weights.named(weights), folder, device)
    tasks = {split: _task(store, index, split, settings) for split in splits}
    shards: dict[int, Path] = {}
    todo: dict[str, ExtractionTask] = {}

    def finish(task: SplitPlan) -> None:
        units = {modality: work.unit(task, modality) for modality in MODALITIES}
        missing = [modality for modality, unit in units.items() if not is_complete(unit, store.ids)]
        if missing:
            _log.warning("split %d: no shard yet, for %s is missing", task.split, " and ".join(missing))
            return
        path = shard_path(root, name, task.split)
        with lease(path, wait=lambda: check_stop(stop)):
            shards[task.split] = _write_shard(path, name, work, task, units)

    for output_folder in (folder, root / "shards"):
        sweep(output_folder)
        remove_stale(output_folder)
    with stop_requests() as stop, ExitStack() as stack:
        for task in tasks.values():
            check_stop(stop)
            if _shard_is_there(shard_path(root, name, task.split), work.recipe(task)):
                shards[task.split] = shard_path(root, name, task.split)
                continue
            missing = {}
            for unit in (work.unit(task, modality) for modality in chosen):
                if is_complete(unit, store.ids):
                    remove(unit.checkpoint)  # left by a run that was killed just before it did this
                else:
                    remove(unit.path)  # it is damaged; a file found there later was made by another process
                    missing[unit.name] = unit
            todo |= missing
            if not missing:
                finish(task)
        if todo:
            stack.enter_context(lease(*(unit.path for unit in todo.values())))
            for unit in todo.values():
                sweep(folder, f".{unit.checkpoint.name}.*.partial", others=True)
            work = replace(work, weights=work.weights.located(root / "raw"))
            todo = {key: replace(unit, weights=work.weights) for key, unit in todo.items()}
        for key in _run(dict(todo), stop, scheduler, progress):
            unit = todo.pop(key)
            for path in (unit.path, unit.checkpoint):  # left by workers that died; checkpoints are large
                sweep(folder, f".{path.name}.*.partial", others=True)
            split = unit.split
            if split not in {unit.split for unit in todo.values()}:
                finish(tasks[split])
    return [shards[split] for split in splits if split in shards]


def _modalities(names: Sequence[str]) -> list[ImageModality]:
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names:
        raise UsageError(
            f"there is no modality '{unknown[0] if unknown else ''}'", f"modalities: {', '.join(MODALITIES)}"
        )
    return [modality for modality in MODALITIES if modality in names]


def _index(store: ImageStore) -> Index:
    return index_names(f"{sample}_{kind}.png" for sample in store.ids for kind in ("crop", "depthcrop"))


def _task(store: ImageStore, index: Index, number: int, settings: FeatureSettings) -> SplitPlan:
    split = split_frames(index, store.index.trials, number)
    test = {frame.id for frame in split.test}
    chosen = set(labelled_ids(split, settings.labelled, seed=settings.seed))
    category = {frame.id: index.categories.index(frame.category) for frame in index.frames}
    task = SplitPlan(
        number,
        index.categories,
        np.array([category[sample] for sample in store.ids], np.int64),
        np.array([sample in test for sample in store.ids]),
        np.array([sample in chosen for sample in store.ids]),
        dict(store.index.trials[number]),
    )
    missing_classes = sorted(set(range(len(task.classes))) - set(task.labels[task.labelled].tolist()))
    if missing_classes:
        _log.warning(
            "split %d: among its %d labelled images there is none of %s",
            number,
            len(chosen),
            ", ".join(task.classes[k] for k in missing_classes),
        )
    return task


def _run(
    units: Mapping[str, ExtractionTask], stop: Stop, scheduler: str | None, progress: Progress | None
) -> Iterator[str]:
    """Computes units; yields the name of each once its file exists."""
    for count, key in enumerate(_computed(units, stop, scheduler, progress), start=1):
        _log.info("%s: done, %d of %d", key, count, len(units))
        yield key


def _computed(
    units: Mapping[str, ExtractionTask], stop: Stop, scheduler: str | None, progress: Progress | None
) -> Iterator[str]:
    if scheduler is None:
        for key, unit in units.items():
            if not _is_made(unit):
                compute(unit, lambda: check_stop(stop), progress)
            yield key
        return
    arguments = {key: (unit,) for key, unit in units.items()}
    if progress is not None:
        progress(_ON_CLUSTER, 0, len(units))
    done = run_tasks(_compute_on_worker, arguments, stop, scheduler=scheduler, resource="GPU", announce=True)
    for count, (key, _) in enumerate(done, start=1):
        if progress is not None:
            progress(_ON_CLUSTER, count, len(units))
        yield key


def _compute_on_worker(unit: ExtractionTask, event: str) -> None:
    with on_worker(unit.store):
        if not _is_made(unit):  # made by a worker that was believed dead
            compute(unit, distant_stop(event))


def _is_made(unit: ExtractionTask) -> bool:
    """Whether another process has made the unit since we last looked."""
    try:
        return unit.path.exists() and read_recipe(unit.path) == unit.recipe
    except DataError:
        return False


def _shard_is_there(path: Path, recipe: Mapping[str, Any]) -> bool:
    if not path.exists():
        return False
    try:
        shard = Shard.open(path)
        shard.verify()
    except DataError as error:
        _log.warning("%s; it is made again", error.message)
        return False
    check_recipe(path, shard.provenance.get("recipe", {}), recipe)
    _log.info("%s is there already", path)
    return True


def _write_shard(
    path: Path, name: str, work: Extraction, task: SplitPlan, units: Mapping[ImageModality, ExtractionTask]
) -> Path:
    ids = np.array(work.store.ids)
    index = work.store.index
    devices = {}
    for modality, unit in units.items():
        with hdf5.reading(unit.path) as file:
            devices[NAMES[modality]] = hdf5.attribute(unit.path, file, "device")
            width = hdf5.dataset(unit.path, file, "fc1").shape[1]

    def part(rows: NDArray[np.bool_]) -> PartData:
        features = {NAMES[modality]: read_rows(unit.path, rows) for modality, unit in units.items()}
        return PartData(features, task.labels[rows], ids[rows])

    train = replace(part(~task.test), labelled=task.labelled[~task.test])
    write_shard(
        path,
        dataset=name,
        split=task.split,
        classes=task.classes,
        modalities=[Modality(NAMES[modality], width, "nonnegative") for modality in units],
        train=train,
        test=part(task.test),
        provenance={
            "made by": "mmssl extract",
            "feature": FEATURE,
            "x": "RGB",
            "w": f"depth as {index.settings.depth_encoding}",
            "recipe": work.recipe(task),
            "weights": work.weights.name,
            "computed on": devices,
            "images": {
                "dataset": index.dataset,
                "source": {key: len(v) if key == "deviations" else v for key, v in index.source.items()},
                "settings": index.settings.model_dump(),
                "versions": list(index.versions),
                "frames left out": len(index.skipped),
            },
            "versions": versions("torch", "torchvision", "numpy"),
        },
        preset="sample" if index.dataset == SAMPLE else "rgbd",
    )
    _log.info("wrote %s", path)
    return path
