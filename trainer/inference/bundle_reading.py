"""Reading a bundle that comes from anyone (`trainer.inference.bundle`)."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from pipeline.runtime.arrays import read_npz
from pipeline.runtime.contents import other_kind_of
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import sha256
from pipeline.runtime.tensor_files import read_tensor_file
from pipeline.runtime.texts import read_text
from pipeline.runtime.versions import newer
from pipeline.shards.schema import Scaling
from trainer.inference.bundle import (
    CARD,
    CHECK,
    LABELLED,
    MODEL,
    PROBABILITIES,
    REFERENCE,
    SCALING,
    WEIGHTS,
    Bundle,
    Check,
    encoder_file,
)
from trainer.inference.card import FORMAT, OLDEST, BundleCard
from trainer.inference.network import EXPORT_HINT, read_settings
from trainer.inference.unlikeness import Reference

MOST_CARD_BYTES = 2**24


def read_card(folder: Path) -> BundleCard:
    """The card of a bundle.

    Raises:
        DataError: the folder holds no bundle, or one that was changed or is newer than this program.
    """
    path = folder / CARD
    if not os.path.lexists(path):
        raise DataError(f"{folder} holds no bundle: there is no {CARD} in it", EXPORT_HINT)
    if _plain_size(path) > MOST_CARD_BYTES:
        raise DataError(f"{path} is too large for the card of a bundle", EXPORT_HINT)
    try:
        values = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {str(error)[:200]}", EXPORT_HINT) from None
    version = values.get("format") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise DataError(f"{path} is not the card of a bundle", EXPORT_HINT)
    if version > FORMAT:
        raise newer(folder, f"bundle format {version}", f"reads {FORMAT}")
    if version < OLDEST:
        raise DataError(
            f"{folder} was written by an older version of mmssl (bundle format {version}; this version reads {FORMAT})",
            EXPORT_HINT,
        )
    try:
        card = BundleCard.model_validate(values)
        digest = card.content_digest()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:100]
        raise DataError(f"{path} is not the card of a bundle: {place}: {first['msg'][:200]}", EXPORT_HINT) from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"cannot read {path}: {str(error)[:200]}", EXPORT_HINT) from None
    if digest != card.digest:
        raise DataError(f"{path} was changed or damaged: its content does not match its digest", EXPORT_HINT)
    return card


def read_bundle(folder: Path) -> Bundle:
    """Reads a bundle; encoders are read, and checked, when they are used (`encoder_path`).

    Raises:
        DataError: the folder holds no bundle, or one that was changed, damaged, or is newer than this program.
    """
    card = read_card(folder)
    read_settings(card, str(folder))  # first of all, because it checks names and widths
    for name in (WEIGHTS, CHECK):
        _checked(folder, name, card)
    tensors = read_tensor_file(folder / WEIGHTS).tensors
    try:
        return Bundle(
            card,
            {name.removeprefix(MODEL): t for name, t in tensors.items() if name.startswith(MODEL)},
            _read_scaling(card, tensors),
            _read_references(card, tensors),
            np.sort(tensors[LABELLED].numpy().astype(np.int64)),
            _read_check(folder, card),
        )
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{folder} does not hold what its card says: {reason}", EXPORT_HINT) from None


def encoder_path(folder: Path, card: BundleCard, modality: str) -> Path:
    """The file of a modality's encoder, once it is known to be the one that was exported.

    Raises:
        DataError: the bundle has none, or it was removed or changed.
    """
    name = encoder_file(modality)
    if name not in card.files:
        raise DataError(
            f"{folder} has no encoder for '{modality}', so it takes features of it and no pictures",
            "export it again where the encoder was kept: mmssl extract --keep-encoder, then mmssl export",
        )
    return _checked(folder, name, card)


def _checked(folder: Path, name: str, card: BundleCard) -> Path:
    if name not in card.files:
        raise DataError(f"{folder / CARD} does not name the bundle's {name}", EXPORT_HINT)
    if not os.path.lexists(folder / name):
        raise DataError(f"{folder} is not complete: its {name} was removed", EXPORT_HINT)
    if not is_intact(folder, name, card):
        other = other_kind_of(folder / name, b"PK\x03\x04")
        if other is not None:
            raise DataError(f"{folder / name} is {other.what}, not what was exported", other.hint or EXPORT_HINT)
        raise DataError(f"{folder / name} was changed or damaged: it is not the file that was exported", EXPORT_HINT)
    return folder / name


def is_intact(folder: Path, name: str, card: BundleCard) -> bool:
    path, expected = folder / name, card.files[name]
    if Path(name).name != name or _plain_size(path) != expected.bytes:
        return False
    try:
        return sha256(path) == expected.sha256
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _plain_size(path: Path) -> int:
    """The size of a plain file; links and devices could lead anywhere.

    Raises:
        DataError: it is missing, or not a plain file.
    """
    try:
        there = os.lstat(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(there.st_mode):
        raise DataError(f"{path} is not a plain file, so it is not read", "copy the files themselves, without links")
    return there.st_size


def _read_scaling(card: BundleCard, tensors: Mapping[str, Tensor]) -> dict[str, Scaling]:
    scaling = {}
    for modality in card.modalities:
        values = tensors.get(f"{SCALING}{modality.name}")
        if values is None:
            continue
        mean, deviation = values.numpy().astype(np.float32)
        good = mean.shape == (modality.width,) and np.isfinite(values.numpy()).all() and (deviation > 0).all()
        if not good:
            raise ValueError(f"the scaling of {modality.name} is not {modality.width} means and deviations")
        scaling[modality.name] = Scaling(mean, deviation)
    return scaling


def _read_references(card: BundleCard, tensors: Mapping[str, Tensor]) -> dict[int, Reference]:
    replicas, total, shared = len(card.seeds), len(card.modalities), tensors.get(_last_latents(tensors))
    references = {}
    for number, subset in enumerate(card.subsets):
        name = f"{REFERENCE}{number}"
        if f"{name}.distances" not in tensors or not subset.known:
            continue
        latents = tensors.get(f"{name}.latents", shared)
        if latents is None:
            raise ValueError(f"there are no latents for the entry {number}")
        one = Reference(latents.float(), tensors[f"{name}.distances"].float(), tensors[f"{name}.surprise"].float())
        shapes = (one.latents.dim() == 3 and len(one.latents) == replicas and one.latents.shape[1] > 0,
                  one.distances.shape == (replicas, 2, 2), one.surprise.shape == (replicas, total, 2))  # fmt: skip
        finite = all(bool(t.isfinite().all()) for t in (one.latents, one.distances, one.surprise))
        positive = bool((one.distances[..., 1] > 0).all()) and bool((one.surprise[..., 1] > 0).all())
        if not (all(shapes) and finite and positive):
            raise ValueError(f"what unlikeness compares with in the entry {number} has the wrong shape or values")
        references[number] = one
    return references


def _last_latents(tensors: Mapping[str, Tensor]) -> str:
    numbers = [
        int(name.split(".")[1])
        for name in tensors
        if name.startswith(REFERENCE) and name.endswith(".latents") and name.split(".")[1].isdigit()
    ]
    return f"{REFERENCE}{max(numbers, default=0)}.latents"


def _read_check(folder: Path, card: BundleCard) -> Check:
    arrays: dict[str, NDArray[Any]] = read_npz(folder / CHECK)
    x = {m.name: arrays[f"x.{m.name}"].astype(np.float32) for m in card.modalities}
    present = arrays["present"].astype(np.bool_)
    probabilities = arrays[PROBABILITIES].astype(np.float32)
    rows = len(present)
    good = present.shape == (rows, len(card.modalities)) and probabilities.shape == (rows, len(card.classes))
    if not good or not all(x[m.name].shape == (rows, m.width) for m in card.modalities) or not present.any(1).all():
        raise ValueError(f"{CHECK} does not hold rows of these modalities")
    return Check(x, present, probabilities)
