"""Validation parts: a shard's training rows divided, so that settings can be chosen without its test part.

The validation shard's training part is the rest of the rows, and its test part the validation part; the test rows of
the original are not in it. Its data set's name ends in `-validation`, so its scores cannot be taken for test results.
Which rows they are depends on the ids, the classes and the split alone: it is always the same rows.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.locations import DATASETS
from pipeline.datasets.washington import object_of
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import sweep
from pipeline.runtime.versions import versions
from pipeline.shards.schema import VALIDATION, Features
from pipeline.shards.shard import Part, Shard
from pipeline.shards.writing import PartData, write_shard

_log = logging.getLogger(__name__)
_SEED = 0
_MNIST = re.compile(r"[hn]m-mnist(-.*)?")
_MNIST_PARTS, _PARTS = 6, 5  # the validation part is one of so many: 10,000 of MNIST's 60,000 rows, a fifth elsewhere
_SPLIT = re.compile(r"(.+)(-split-\d+)")

Mask = NDArray[np.bool_]


def validation_path(path: Path) -> Path:
    """The file of a shard's validation shard: `hm-mnist-validation.h5`, `rgbd-validation-split-3.h5`, next to it."""
    match = _SPLIT.fullmatch(path.stem)
    name, split = (match[1], match[2]) if match else (path.stem, "")
    return path.with_name(f"{name}{VALIDATION}{split}{path.suffix}")


def build_validation(path: Path, target: Path | None = None) -> Path:
    """Writes the validation shard of a shard, or verifies it if it exists.

    Args:
        path: the shard's file.
        target: the file to write; by default `validation_path(path)`.

    Raises:
        DataError: the shard cannot be read or divided, or the file that exists is damaged or of another shard.
        StorageError: the disk is full or refuses.
    """
    shard = Shard.open(path)
    target = target or validation_path(path)
    if target.exists():
        _check(Shard.open(target), shard)
        _log.info("%s exists and is intact", target)
        return target
    sweep(target.parent)
    validation_shard(shard, target)
    _log.info("wrote %s", target)
    return target


def validation_shard(shard: Shard, path: Path, group_of: Callable[[str], str] | None = None) -> Shard:
    """Writes a shard that divides the training part of another: the rest for training, and a validation part as test.

    Without groups the validation part is a fixed share of the rows of each class, and of the labelled rows among them
    if the shard marks any. With objects it is one whole object per class, so that it asks what a test part of unseen
    objects asks; with groups that the shard names, it is whole groups. Every class keeps rows for training, and
    labelled rows if it has any. Rows of unknown class stay in training, unless their group does not. Features are read
    in blocks.

    Args:
        path: the file to write.
        group_of: maps the id of a row to its group; by default the object that an RGB-D frame shows, and for other
            data there are no groups.

    Raises:
        DataError: the shard is a validation shard itself, there is too little to divide, or it is damaged.
        StorageError: the disk is full or refuses; nothing is left behind.
    """
    held_out, rule = _choose(shard, group_of)
    shape = {key: value for key, value in shard.provenance.items() if key == "shape"}  # which values are an image
    return write_shard(
        path,
        dataset=shard.dataset + VALIDATION,
        classes=shard.classes,
        modalities=shard.modalities,
        train=_part(shard.train, ~held_out, masked=True),
        test=_part(shard.train, held_out, masked=False),
        split=shard.split,
        provenance={
            "made by": "mmssl shards validation",
            "validation": {"of": shard.dataset, "digest": shard.digest, "rule": rule, "seed": _SEED},
            "original": shard.provenance,
            "versions": versions("numpy"),
            **shape,
        },
        preset=shard.preset,
        scaling=shard.scaling,
        encoders=shard.encoders,
    )


def _check(existing: Shard, shard: Shard) -> None:
    """Checks that an existing file is the validation shard of a shard.

    Raises:
        DataError: it is not, or it is damaged.
    """
    path, hint = existing.path, f"move {existing.path} away, and run the same command again"
    made = existing.provenance.get("validation")
    if not isinstance(made, Mapping) or existing.dataset != shard.dataset + VALIDATION:
        raise DataError(f"{path}: holds the data set {existing.dataset}, not a validation part of {shard.path}", hint)
    if made.get("digest") != shard.digest:
        raise DataError(f"{path}: was made from a shard with another content (digest) than {shard.path}", hint)
    existing.verify()
    held_out, _ = _choose(shard, None)
    if not np.array_equal(existing.test.ids, shard.train.ids[held_out]):
        raise DataError(f"{path}: its validation part has other rows than this version chooses", hint)


def _choose(shard: Shard, group_of: Callable[[str], str] | None) -> tuple[Mask, str]:
    """The validation rows, bool `[N]`, and the rule by which they were chosen, in words."""
    if shard.dataset.endswith(VALIDATION):
        raise DataError(f"{shard.path}: is a validation shard already", "divide the shard it was made from")
    images = shard.provenance.get("images")
    if group_of is None and isinstance(images, Mapping) and images.get("dataset") in DATASETS:
        group_of = object_of
    if not (shard.train.labels >= 0).any():
        raise DataError(f"{shard.path}: no training row has a known class, so there is nothing to validate on")
    if group_of is not None:
        return _one_group_per_class(shard, group_of), "one whole object (group of rows) per class"
    if shard.train.groups is not None and (shard.train.groups != "").any():
        return _whole_groups(shard, shard.train.groups), f"one row in {_PARTS} at most of each class, in whole groups"
    parts = _MNIST_PARTS if _MNIST.fullmatch(shard.dataset) else _PARTS
    labelled = "" if shard.train.labelled is None else " and labelled mask"
    return _share_of_rows(shard, parts), f"one row in {parts}, stratified by class{labelled}"


def _share_of_rows(shard: Shard, parts: int) -> Mask:
    """One row in `parts`, with each stratum (class and labelled or not) in proportion, by largest remainders.

    Of a stratum at least one row stays for training, so a class keeps its labelled rows.
    """
    part = shard.train
    marked = np.zeros(part.rows, np.bool_) if part.labelled is None else part.labelled
    strata = [
        rows
        for label in range(len(shard.classes))
        for flag in (False, True)
        if len(rows := np.flatnonzero((part.labels == label) & (marked == flag)))
    ]
    counts = [min(len(rows) // parts, len(rows) - 1) for rows in strata]
    missing = sum(map(len, strata)) // parts - sum(counts)
    for k in sorted(range(len(strata)), key=lambda k: -(len(strata[k]) % parts)):
        if missing > 0 and counts[k] < len(strata[k]) - 1:
            counts[k] += 1
            missing -= 1
    if not sum(counts):
        raise DataError(
            f"{shard.path}: has {part.rows} training rows, too few to divide", "choose settings on more data"
        )
    held_out = np.zeros(part.rows, np.bool_)
    for rows, count in zip(strata, counts, strict=True):
        held_out[sorted(rows, key=lambda row: _ticket(shard, str(part.ids[row])))[:count]] = True
    return held_out


def _whole_groups(shard: Shard, names: NDArray[np.str_]) -> Mask:
    """Whole groups in a seeded order, each while the classes in it stay below a fifth of their rows, rounded up.

    Of rows of no group each is one of its own, and those of unknown class stay in training. Every class keeps rows for
    training, and labelled ones if it has any.
    """
    part, classes = shard.train, len(shard.classes)
    marked = part.labels >= 0 if part.labelled is None else part.labelled
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names.tolist()):
        if name or part.labels[row] >= 0:
            rows.setdefault(name or f"\0{part.ids[row]}", []).append(row)
    groups = {name: np.array(members) for name, members in rows.items()}

    def counts(chosen: NDArray[np.int64], mask: Mask) -> NDArray[np.int64]:
        return np.bincount(part.labels[chosen][mask[chosen]], minlength=classes)

    known = part.labels >= 0
    everything = np.arange(part.rows)
    totals, left = counts(everything, known), counts(everything, marked & known)
    most = -(-totals // _PARTS)
    held_out, held = np.zeros(part.rows, np.bool_), np.zeros(classes, np.int64)
    for name in sorted(groups, key=lambda name: _ticket(shard, name)):
        adds, takes = counts(groups[name], known), counts(groups[name], marked & known)
        present = adds > 0
        fits = (held + adds <= most)[present].all() and (held + adds < totals)[present].all()
        if present.any() and fits and (left - takes > 0)[takes > 0].all():
            held_out[groups[name]] = True
            held, left = held + adds, left - takes
    if not held_out.any():
        raise DataError(
            f"{shard.path}: its groups are too large to hold one out: each has more than a fifth of a class",
            "choose settings on more data, or import it with another --group",
        )
    return held_out


def _one_group_per_class(shard: Shard, group_of: Callable[[str], str]) -> Mask:
    """All rows of one group of each class: the first, in a seeded order, without which the class can be learned."""
    part = shard.train
    groups = np.array([group_of(str(name)) for name in part.ids])
    held_out = np.zeros(part.rows, np.bool_)
    for label, name in enumerate(shard.classes):
        in_class = part.labels == label
        if not in_class.any():
            continue
        for group in sorted(set(groups[in_class].tolist()), key=lambda group: _ticket(shard, group)):
            chosen = groups == group
            rest = in_class & ~chosen
            keeps_labels = part.labelled is None or not part.labelled[in_class].any() or part.labelled[rest].any()
            if in_class[chosen].all() and rest.any() and keeps_labels:
                held_out |= chosen
                break
        else:
            raise DataError(
                f"{shard.path}: no object of {name} can be held out, for training would be left without its labels",
                "a class needs two objects in the training part",
            )
    return held_out


def _ticket(shard: Shard, name: str) -> bytes:
    """The place of a row or group in a seeded order that depends neither on the file's order nor on NumPy's version."""
    return hashlib.sha256(f"validation/{_SEED}/{shard.split}/{name}".encode()).digest()


def _part(part: Part, rows: Mask, *, masked: bool) -> PartData:
    """The rows of a part, whose features are read when they are written."""

    def blocks(modality: str) -> Iterator[Features]:
        start = 0
        for block in part.blocks(modality):
            chosen = rows[start : start + len(block)]
            start += len(block)
            if chosen.any():
                yield block[chosen]

    return PartData(
        {modality.name: blocks(modality.name) for modality in part.modalities},
        part.labels[rows],
        part.ids[rows].tolist(),
        part.labelled[rows] if masked and part.labelled is not None else None,
        {name: present[rows] for name, present in part.present.items()},
        None if part.groups is None else part.groups[rows].tolist(),
    )
