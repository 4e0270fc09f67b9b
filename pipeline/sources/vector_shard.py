"""Imported vectors as a shard: each modality's distribution, its scaling by the training rows, and the file itself."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pipeline.datasets.names import imported_shard
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.files import sha256, sweep
from pipeline.runtime.interrupts import check_stop, stop_requests
from pipeline.runtime.leases import lease
from pipeline.runtime.versions import versions
from pipeline.shards.schema import Distribution, Features, Modality, Scaling
from pipeline.shards.shard import Shard
from pipeline.shards.writing import PartData, write_shard
from pipeline.sources.parts import Labelling
from pipeline.sources.rows import Source

_log = logging.getLogger(__name__)
MADE_BY = "mmssl data import"
_WIDE = 10.0  # nonnegative values beyond it are scaled: features after a ReLU lie below


def distributions_of(source: Source, given: Mapping[str, str]) -> dict[str, Distribution]:
    """How each modality is distributed: as the person says, otherwise as its values look.

    Values in [0, 1] are bernoulli, other values >= 0 nonnegative, and the rest gaussian.

    Raises:
        UsageError: there is no such modality or distribution, or a modality's values do not suit it.
    """
    known = get_args(Distribution)
    for name, family in given.items():
        if name not in source.vectors:
            raise UsageError(
                f"--distribution {name}={family}: there is no modality {name!r}",
                f"modalities: {', '.join(source.vectors)}",
            )
        if family not in known:
            raise UsageError(
                f"--distribution {name}={family}: there is no distribution {family!r}",
                f"distributions: {', '.join(known)}",
            )
    chosen: dict[str, Distribution] = {}
    for name, values in source.vectors.items():
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        fitting = _distribution(low, high)
        chosen[name] = next((family for family in known if family == given.get(name)), fitting)
        if known.index(chosen[name]) < known.index(fitting):
            raise UsageError(
                f"--distribution {name}={chosen[name]}: its values reach from {low:g} to {high:g}",
                f"{chosen[name]} values lie {'in [0, 1]' if chosen[name] == 'bernoulli' else 'at or above 0'}",
            )
    return chosen


def _distribution(low: float, high: float) -> Distribution:
    if low < 0:
        return "gaussian"
    return "bernoulli" if high <= 1 else "nonnegative"


def scaling_of(values: Features, distribution: Distribution) -> Scaling | None:
    """The scaling of a modality by its training values `[N, D]`, of which rows of NaN do not count; None for none.

    Gaussian values get mean 0 and deviation 1. Nonnegative ones with a wide range are divided by their deviation
    alone, so that 0 stays 0. Where a column is constant, the deviation counts as 1.
    """
    if distribution == "bernoulli" or (distribution == "nonnegative" and float(np.nanmax(values)) <= _WIDE):
        return None
    rows = values[~np.isnan(values).all(axis=1)].astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    # What rounding leaves of the deviation of a constant column is no deviation.
    deviation[deviation <= 1e-6 * np.abs(rows).max(axis=0)] = 1
    if distribution == "nonnegative":
        mean[:] = 0
    return Scaling(mean.astype(np.float32), deviation.astype(np.float32))


def import_vectors(
    source: Source,
    labelling: Labelling,
    name: str,
    root: Path,
    *,
    distributions: Mapping[str, Distribution],
    settings: Mapping[str, Any],
) -> Path:
    """Writes the shard `shards/NAME.h5`, or verifies it if the same import made it before.

    Args:
        distributions: of every modality.
        settings: what was asked for, for the provenance.

    Raises:
        DataError: a modality is in no training row, or there is a shard of that name with other content.
        LeasedError: another process is writing it.
        StorageError: the disk is full or refuses.
        Interrupted: SIGTERM or Ctrl-C.
    """
    train, test = np.flatnonzero(~labelling.test), np.flatnonzero(labelling.test)
    present = {modality: source.has(modality) for modality in source.vectors}
    for modality, rows in present.items():
        if not rows[train].any():
            raise DataError(f"{source.path}: no training row has the modality {modality}", "leave it out of the source")
    scaling = {
        modality: scaled
        for modality, values in source.vectors.items()
        if (scaled := scaling_of(values[train], distributions[modality])) is not None
    }

    def part(rows: np.typing.NDArray[np.int64]) -> PartData:
        features = {}
        for modality, values in source.vectors.items():
            chosen = values[rows]
            if modality in scaling:
                chosen = scaling[modality](chosen)
            features[modality] = np.where(present[modality][rows, None], chosen, np.float32(0))
        return PartData(
            features,
            labelling.labels[rows],
            [source.ids[row] for row in rows],
            present={modality: has[rows] for modality, has in present.items()},
            groups=None if labelling.groups is None else labelling.groups[rows].tolist(),
        )

    recipe = {"files": _digests(source), "settings": dict(settings), "distributions": dict(distributions)}
    path = imported_shard(name, root)
    with stop_requests() as stop, lease(path, wait=lambda: check_stop(stop)):
        if path.exists():
            _check_existing(path, recipe, labelling.classes)
            _log.info("%s exists and is intact", path)
            return path
        sweep(path.parent)
        write_shard(
            path,
            dataset=name,
            classes=labelling.classes,
            modalities=[
                Modality(modality, values.shape[1], distributions[modality])
                for modality, values in source.vectors.items()
            ],
            train=part(train),
            test=part(test) if test.size else None,
            provenance={
                "made by": MADE_BY,
                "source": source.path.name,
                "recipe": recipe,
                "test part": labelling.rule,
                "rows left out": len(source.left_out),
                "scaled": {m: "deviation" if distributions[m] == "nonnegative" else "mean, deviation" for m in scaling},
                "versions": versions("numpy", "scikit-learn"),
            },
            scaling=scaling,
        )
    _log.info("wrote %s", path)
    return path


def _digests(source: Source) -> dict[str, str]:
    files = sorted(source.path.glob("[!.]*.npy")) if source.path.is_dir() else [source.path]
    return {file.name: sha256(file) for file in files}


def _check_existing(path: Path, recipe: Mapping[str, Any], classes: Sequence[str]) -> None:
    shard = Shard.open(path)
    made = shard.provenance.get("recipe")
    if shard.provenance.get("made by") != MADE_BY or not isinstance(made, dict):
        raise DataError(f"{path}: exists, and was not made by `mmssl data import`", "choose another --name")
    differing = [key for key, value in recipe.items() if made.get(key) != value]
    if tuple(classes) != tuple(shard.classes):  # classes may be named that no row has yet
        differing.append("classes")
    if differing:
        raise DataError(
            f"{path}: exists with other {' and '.join(differing)}", f"choose another --name, or remove {path} first"
        )
    shard.verify()
