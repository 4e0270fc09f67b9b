"""From the image store to feature shards: a pair (split, modality) is the unit of work, and of resuming after a stop.

A unit fine-tunes a network on its split's labelled images and then computes the features of every image, which are
stored in `features/<name>/split-<k>-<modality>.h5`. What layers give that are not tuned is computed once for all
splits, in `<modality>-lower.h5`. Once all units of a split exist, its shard is written. Imported data have no splits:
one unit per modality, and one shard. Units run one after another in this process, side by side in several, or as Dask
tasks on a cluster whose workers see the same workspace.
"""

import logging
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.locations import DATASETS
from pipeline.features import feature_shards
from pipeline.features.backbones import Backbone
from pipeline.features.executors import compute_all
from pipeline.features.feature_file import is_complete
from pipeline.features.feature_shards import ShardPlan
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.features.plans import RowPlan, digest_of_labels, imported_plan, trial_plans
from pipeline.features.split_modality import ExtractionTask, Progress, has_encoder
from pipeline.features.weights import VGG16, Weights
from pipeline.images.preprocess import store_folder
from pipeline.images.store import MODALITIES, ImageModality, ImageSettings, ImageStore
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.failures import Failures
from pipeline.runtime.files import remove, sweep
from pipeline.runtime.interrupts import check_stop, stop_requests
from pipeline.runtime.leases import lease, remove_stale
from pipeline.shards.schema import VALIDATION

_log = logging.getLogger(__name__)
OWN_EPOCHS = 0  # of fine-tuning on imported data, if nobody says: with a few labels it helps little and takes hours


@dataclass(frozen=True)
class Extraction:
    """What all units of a command have in common."""

    store: ImageStore
    settings: FeatureSettings
    backbone: Backbone
    weights: Weights
    name: str
    folder: Path
    device: str
    keep: bool
    share: bool

    def recipe(self, plan: RowPlan) -> dict[str, Any]:
        """Identifies the results of a split, or of imported data, whoever computed them."""
        recipe: dict[str, Any] = {
            "images": self.store.digest,
            "weights": self.weights.identity,
            "settings": self.settings.identity(*(("labelled",) if plan.split is None else ())),
        }
        if self.backbone.name != VGG16:
            recipe["backbone"] = self.backbone.name
        if plan.split is None:
            return recipe | {"rows": plan.rows}
        return recipe | {
            "split": plan.split,
            "left out": dict(plan.left_out),
            "labelled": digest_of_labels(self._labelled(plan)),
        }

    def unit(self, plan: RowPlan, modality: ImageModality) -> ExtractionTask:
        """The unit of work for one modality of a split, or of imported data."""
        chosen = plan.labelled & self.store.has(modality)
        labelled, labels = self._labelled(plan, modality), plan.labels[chosen]
        recipe = self.recipe(plan) | {"modality": modality}
        if plan.split is None:
            # What was imported with the frames changes the features by fine-tuning alone.
            del recipe["rows"]
            recipe["lacking"] = digest_of_labels(np.flatnonzero(~self.store.has(modality)).astype(str).tolist())
            if len(set(labels.tolist())) < 2:
                labelled, labels = [], labels[:0]
            if self.settings.epochs:
                recipe |= {"classes": len(plan.classes), "labelled": digest_of_labels(labelled, labels)}
        return ExtractionTask(
            store=self.store.folder.resolve(),
            path=self.folder / f"{self._split(plan)}{modality}.h5",
            split=plan.split,
            modality=modality,
            classes=len(plan.classes),
            labelled=tuple(labelled),
            labels=labels,
            settings=self.settings,
            weights=self.weights,
            device=self.device,
            recipe=recipe,
            backbone=self.backbone,
            keep=self.keep,
            lower=self.folder / f"{self._split(plan) if self.weights.is_random else ''}{modality}-lower.h5"
            if self.share
            else None,
        )

    def _split(self, plan: RowPlan) -> str:
        """What the names of a split's files begin with."""
        return "" if plan.split is None else f"split-{plan.split}-"

    def shard(self, path: Path, plan: RowPlan) -> ShardPlan:
        """The shard of a split, or of imported data."""
        units = {modality: self.unit(plan, modality) for modality in plan.names}
        return ShardPlan(path, self.name, self.store, plan, units, self.backbone, self.recipe(plan), self.weights.name)

    def _labelled(self, plan: RowPlan, modality: ImageModality = "rgb") -> list[str]:
        chosen = plan.labelled & self.store.has(modality)
        return [sample for sample, labelled in zip(self.store.ids, chosen, strict=True) if labelled]


def shard_path(root: Path, name: str, split: int | None) -> Path:
    """The path of a split's shard, or of the shard of imported data."""
    return root / "shards" / (f"{name}.h5" if split is None else f"{name}-split-{split}.h5")


def default_name(dataset: str, images: ImageSettings, backbone: str = VGG16) -> str:
    """The name of shards if the user gives none: `rgbd`, `rgbd-normals`, `rgbd-sample-64`, `rgbd-resnet50`, ..."""
    return f"{dataset}{images.suffix}" + ("" if backbone == VGG16 else f"-{backbone}")


def extract(
    dataset: str,
    root: Path,
    splits: Sequence[int],
    images: ImageSettings,
    settings: FeatureSettings,
    *,
    weights: str = "imagenet",
    backbone: str = VGG16,
    keep_encoder: bool | None = None,
    modalities: Sequence[str] = MODALITIES,
    name: str | None = None,
    device: str = "auto",
    scheduler: str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Path]:
    """Makes the feature shards of some splits, or of imported data, keeping what exists and passes verification.

    Args:
        dataset: `rgbd`, `rgbd-sample`, or the name under which pictures were imported.
        root: the workspace; with a scheduler, a folder that its workers see under the same path.
        splits: empty for imported data.
        images: for imported data the store decides, and what is set explicitly must agree with it.
        settings: for imported data, epochs are 0 unless set explicitly, and all labels are used.
        backbone: torchvision's name of the network.
        keep_encoder: whether to keep the networks; None: only for imported data.
        modalities: those to compute; a shard is written once all modalities exist, computed now or before.
        name: of the shards and of the folder of units; allows several settings side by side.
        jobs: how many processes of this machine compute units side by side.
        progress: called at every step of a unit computed in this process, and for every unit finished elsewhere;
            without it the log reports progress.

    Returns:
        The shards that exist now, in the order of the splits.

    Raises:
        UsageError: no such split, modality, network or device, or a name that cannot be a file's.
        DataError: no image store, unusable weights, or results of other settings under this name.
        TrainingError: some of several splits failed; the others are done.
        LeasedError: another process is computing one of them.
        StorageError: the disk is full or refuses.
        Interrupted: SIGTERM or Ctrl-C; the same command resumes.
    """
    if jobs > 1 and scheduler is not None:
        raise UsageError("--jobs applies to local processes only: omit it with --scheduler")
    chosen = _modalities(modalities)
    network = Backbone.named(backbone)
    store = open_store(dataset, root, images)
    imported = store.index.rows
    network.check_side(store.index.settings.size)
    if imported is None:
        name = name or default_name(dataset, images, backbone)
        keep = bool(keep_encoder)
    else:
        if splits:
            raise UsageError(f"{dataset} has no splits", "leave --split out")
        if "labelled" in settings.model_fields_set:
            raise UsageError(f"{dataset} keeps the labels it was imported with", "leave --labelled out")
        if "epochs" not in settings.model_fields_set:
            settings = settings.model_copy(update={"epochs": OWN_EPOCHS})
        name = name or dataset
        keep = keep_encoder is not False
    if settings.tune == "fc1" and not network.has_upper_layers:
        raise UsageError(
            f"--tune fc1: {backbone} has no layers between the one that is taken and the last one",
            "--epochs 0 takes the network as it is, --tune all tunes all of it",
        )
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise UsageError(f"--name {name}: a name has letters, digits, '.', '_' and '-' alone")
    if name.endswith(VALIDATION):
        raise UsageError(f"--name {name}: names that end in {VALIDATION} are for validation parts")
    failures = Failures(alone=len(splits) < 2)
    plans = (
        trial_plans(store, splits, settings, failures) if imported is None else [imported_plan(store, imported, name)]
    )
    if scheduler is None:
        choose_device(device)  # a missing device is reported before the work begins
    folder = (root / "features" / name).resolve()
    start = Weights.named(weights, backbone)
    # Where no layer is tuned, all splits have the same network, but for random ones.
    share = settings.tune == "fc1" or (
        not settings.epochs and len(plans) > 1 and network.has_upper_layers and not start.is_random
    )
    work = Extraction(store, settings, network, start, name, folder, device, keep, share)
    shards: dict[int | None, Path] = {}
    there: set[int | None] = set()  # the splits whose shard existed already
    todo: dict[str, ExtractionTask] = {}
    by_split = {plan.split: plan for plan in plans}

    def title_of(plan: RowPlan) -> str:
        return name if plan.split is None else f"split {plan.split}"

    def finish(plan: RowPlan) -> None:
        path = shard_path(root, name, plan.split)
        shard = work.shard(path, plan)
        missing = [
            modality for modality, unit in shard.units.items() if not is_complete(unit.path, store.ids, unit.recipe)
        ]
        if missing:
            _log.warning("%s: no shard yet, for %s is missing", title_of(plan), " and ".join(missing))
            return
        with lease(path, wait=lambda: check_stop(stop)):
            if plan.split not in there:
                feature_shards.write(shard)
            elif not feature_shards.has_encoders(path, shard.units, plan.names):
                feature_shards.add_encoders(shard)
            shards[plan.split] = path

    def begin(plan: RowPlan) -> None:
        path = shard_path(root, name, plan.split)
        shard = work.shard(path, plan)
        if feature_shards.is_there(path, shard.recipe):
            if not (keep and _lacks_encoders(shard)):
                _log.info("%s is there already", path)
                shards[plan.split] = path
                return
            there.add(plan.split)
        missing = {}
        for modality in chosen:
            unit = shard.units.get(modality)
            if unit is None:
                continue
            complete, kept = is_complete(unit.path, store.ids, unit.recipe), not keep or has_encoder(unit)
            if complete and kept:
                remove(unit.checkpoint)  # left by a run that was killed just before it did this
                continue
            if not complete:
                remove(unit.path)  # it is damaged; a file found there later was made by another process
            missing[unit.name] = unit
        todo.update(missing)
        if not missing:
            finish(plan)

    for output_folder in (folder, root / "shards"):
        sweep(output_folder)
        remove_stale(output_folder)
    with stop_requests() as stop, ExitStack() as stack:
        for plan in plans:
            check_stop(stop)
            with failures.of(title_of(plan)):
                begin(plan)
        if todo:
            if imported is not None and not settings.epochs:
                _log.info("%s: the network is taken as it is; --epochs 200 fine-tunes it on the labelled frames", name)
            stack.enter_context(lease(*(unit.path for unit in todo.values())))
            for unit in todo.values():
                sweep(folder, f".{unit.checkpoint.name}.*.partial", others=True)
                _warn_of_labels(unit)
            work = replace(work, weights=work.weights.located(root / "raw"))
            todo = {key: replace(unit, weights=work.weights) for key, unit in todo.items()}
        for key in compute_all(dict(todo), stop, scheduler, jobs, progress, failures):
            unit = todo.pop(key)
            for path in (unit.path, unit.checkpoint, unit.encoder):  # left by workers that died; some are large
                sweep(folder, f".{path.name}.*.partial", others=True)
            split = unit.split
            if split not in {unit.split for unit in todo.values()}:
                with failures.of(title_of(by_split[split])):
                    finish(by_split[split])
    failures.raise_if_any(max(1, len(splits)))
    return [shards[split] for split in by_split if split in shards]


def open_store(dataset: str, root: Path, images: ImageSettings) -> ImageStore:
    """The image store of a data set; that of imported pictures has whatever settings they were imported with.

    Raises:
        DataError: there is none, or it is damaged.
        UsageError: it has other settings than those that were set explicitly, or the name is no data set's.
    """
    folder = store_folder(dataset, root, images)
    if dataset in DATASETS:
        return ImageStore.open(folder)
    if "/" in dataset or dataset.startswith("."):
        raise UsageError(f"--data {dataset}: is no data set", f"data sets: {', '.join(DATASETS)}, or imported pictures")
    folder = next((place for place in (folder, root / "images" / dataset) if place.is_dir()), folder)
    if not folder.is_dir():
        raise DataError(
            f"the image store {folder} does not exist",
            f"`mmssl data import SOURCE --name {dataset}` builds it from pictures of your own",
        )
    store = ImageStore.open(folder)
    for setting in sorted(images.model_fields_set):
        found, wanted = getattr(store.index.settings, setting), getattr(images, setting)
        if found != wanted:
            option = setting.replace("_", "-")
            raise UsageError(f"--{option} {wanted}: {dataset} was imported with {found}", f"leave --{option} out")
    return store


def _lacks_encoders(shard: ShardPlan) -> bool:
    complete = all(has_encoder(unit) for unit in shard.units.values())
    return not complete or not feature_shards.has_encoders(shard.path, shard.units, shard.rows.names)


def _warn_of_labels(unit: ExtractionTask) -> None:
    if unit.settings.epochs and not unit.labelled:
        _log.warning(
            "%s: fewer than two classes have a labelled training frame with it, so its network is not fine-tuned",
            unit.name,
        )


def _modalities(names: Sequence[str]) -> list[ImageModality]:
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names:
        raise UsageError(
            f"there is no modality '{unknown[0] if unknown else ''}'", f"modalities: {', '.join(MODALITIES)}"
        )
    return [modality for modality in MODALITIES if modality in names]
