"""From finished units to a shard, and encoders that are added to a shard which exists."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.locations import SAMPLE
from pipeline.features.backbones import Backbone
from pipeline.features.encoder import origin_of, read_encoder_recipe
from pipeline.features.feature_file import check_recipe, read_rows
from pipeline.features.plans import RowPlan
from pipeline.features.split_modality import ExtractionTask, is_close
from pipeline.features.weights import VGG16
from pipeline.images.store import ImageModality, ImageStore
from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError, NewerError
from pipeline.runtime.versions import versions
from pipeline.shards.schema import Features, Modality, Scaling
from pipeline.shards.shard import Part, Shard
from pipeline.shards.writing import PartData, write_shard

_log = logging.getLogger(__name__)
Units = Mapping[ImageModality, ExtractionTask]
_COMPARED = 256  # rows of a shard whose features are compared before an encoder is added to it


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be written: where, of which frames, from which units.

    `recipe` identifies its content, and `weights` is the name of the weights, for people.
    """

    path: Path
    name: str
    store: ImageStore
    rows: RowPlan
    units: Units
    backbone: Backbone
    recipe: Mapping[str, Any]
    weights: str


def is_there(path: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether a shard exists and passes verification; logs a warning if it is damaged.

    Raises:
        DataError: it holds the results of other settings.
    """
    if not path.exists():
        return False
    try:
        shard = Shard.open(path)
        shard.verify()
    except NewerError:
        raise
    except DataError as error:
        _log.warning("%s; it is made again", error.message)
        return False
    check_recipe(path, shard.provenance.get("recipe", {}), recipe)
    return True


def has_encoders(path: Path, units: Units, names: Mapping[ImageModality, str]) -> bool:
    """Whether a shard names the encoders that the units have kept."""
    return dict(Shard.open(path).encoders) == _encoders(units, names)


def write(plan: ShardPlan) -> None:
    """Writes a shard; frames that lack a modality get zeros in it, and whatever is not nonnegative is standardised.

    Raises:
        DataError: a unit is damaged.
        StorageError: the disk is full or refuses.
    """
    rows, index, names = plan.rows, plan.store.index, plan.rows.names
    ids = np.array(plan.store.ids)
    present = {modality: plan.store.has(modality) for modality in plan.units}
    devices, widths = {}, {}
    for modality, unit in plan.units.items():
        with hdf5.reading(unit.path) as file:
            devices[names[modality]] = hdf5.attribute(unit.path, file, "device")
            widths[modality] = hdf5.dataset(unit.path, file, "fc1").shape[1]
    scaling = {}
    if plan.backbone.distribution == "gaussian":
        scaling = {
            modality: _scaling(unit.path, ~rows.test & present[modality], widths[modality])
            for modality, unit in plan.units.items()
        }

    def part(mask: NDArray[np.bool_]) -> PartData:
        return PartData(
            {
                names[modality]: _scaled(unit.path, mask, present[modality], scaling.get(modality))
                for modality, unit in plan.units.items()
            },
            rows.labels[mask],
            ids[mask],
            present={names[modality]: present[modality][mask] for modality in plan.units},
            groups=None if rows.groups is None else rows.groups[mask],
        )

    train = part(~rows.test)
    train.labelled = rows.labelled[~rows.test]
    preset = "sample" if index.dataset == SAMPLE else "rgbd"
    write_shard(
        plan.path,
        dataset=plan.name,
        split=rows.split,
        classes=rows.classes,
        modalities=[Modality(names[modality], widths[modality], plan.backbone.distribution) for modality in plan.units],
        train=train,
        test=part(rows.test) if rows.test.any() else None,
        scaling={names[modality]: scale for modality, scale in scaling.items()},
        encoders=_encoders(plan.units, names),
        provenance={
            "made by": "mmssl extract",
            "feature": f"{plan.backbone.title}'s {plan.backbone.layer.removeprefix('the ')}",
            **{
                names[modality]: "RGB" if modality == "rgb" else f"depth as {index.settings.depth_encoding}"
                for modality in plan.units
            },
            "recipe": dict(plan.recipe),
            "weights": plan.weights,
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
        # The paper's settings are for its own features.
        preset=preset if rows.split is not None and plan.backbone.name == VGG16 else None,
    )
    _log.info("wrote %s", plan.path)


def add_encoders(plan: ShardPlan) -> None:
    """Writes a shard again with the same content, so that it names the encoders that its units have kept since.

    Raises:
        DataError: the units hold other features than the shard.
        StorageError: the disk is full or refuses.
    """
    shard, names = Shard.open(plan.path), plan.rows.names
    for modality, unit in plan.units.items():
        rows = plan.store.has(modality) & ~plan.rows.test
        stored = shard.train.features(names[modality], slice(_COMPARED))
        kept = plan.store.has(modality)[~plan.rows.test][: len(stored)]
        first = np.zeros_like(rows)
        first[np.flatnonzero(~plan.rows.test)[: len(stored)]] = True
        found = np.concatenate([*read_rows(unit.path, first & rows), stored[:0]])
        scale = shard.scaling.get(names[modality])
        if not is_close(found if scale is None else scale(found), stored[kept]):
            raise DataError(
                f"{unit.path} holds other features than {plan.path}, so its encoder is not the shard's",
                "move the shard away, and run the same command again: it is made of the units",
            )
    write_shard(
        plan.path,
        dataset=shard.dataset,
        split=shard.split,
        classes=shard.classes,
        modalities=shard.modalities,
        train=_copy(shard.train),
        test=_copy(shard.test) if shard.test.rows else None,
        scaling=shard.scaling,
        encoders=_encoders(plan.units, names),
        provenance=shard.provenance,
        preset=shard.preset,
    )
    _log.info("%s: names its encoders now", plan.path)


def _copy(part: Part) -> PartData:
    features = {modality.name: part.blocks(modality.name) for modality in part.modalities}
    groups = None if part.groups is None else part.groups.tolist()
    return PartData(features, part.labels, part.ids.tolist(), part.labelled, part.present, groups)


def _encoders(units: Units, names: Mapping[ImageModality, str]) -> dict[str, dict[str, Any]]:
    """The recipes of the encoders that were kept with these units."""
    recipes = {}
    for modality, unit in units.items():
        if unit.encoder.exists():
            recipe, origin = read_encoder_recipe(unit.encoder)
            if origin == origin_of(dict(unit.recipe)):
                recipes[names[modality]] = recipe
    return recipes


def _scaling(path: Path, rows: NDArray[np.bool_], width: int) -> Scaling:
    """Mean and deviation of each column over some rows of a unit; a constant column keeps its deviation of 1."""
    count, total, squares = int(rows.sum()), np.zeros(width), np.zeros(width)
    for block in read_rows(path, rows):
        total += block.sum(axis=0, dtype=np.float64)
    mean = total / count
    for block in read_rows(path, rows):
        squares += np.square(block - mean).sum(axis=0)
    deviation = np.sqrt(squares / count)
    deviation[deviation <= np.finfo(np.float32).tiny] = 1
    return Scaling(mean.astype(np.float32), deviation.astype(np.float32))


def _scaled(
    path: Path, rows: NDArray[np.bool_], present: NDArray[np.bool_], scaling: Scaling | None
) -> Iterator[Features]:
    """The features of some rows of a unit; those that lack the modality stay zeros."""
    has, start = present[rows], 0
    for block in read_rows(path, rows):
        mask = has[start : start + len(block)]
        start += len(block)
        yield block if scaling is None else np.where(mask[:, None], scaling(block), np.float32(0))
