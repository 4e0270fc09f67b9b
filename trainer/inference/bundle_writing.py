"""Writing a bundle, whole or not at all (`trainer.inference.bundle`)."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.arrays import write_npz
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import flush, sha256, storage_error, sweep, write_atomically
from pipeline.runtime.processes import this_process
from pipeline.runtime.tensor_files import TensorFile, write_tensor_file
from trainer.inference.bundle import (
    CARD,
    CHECK,
    LABELLED,
    MODEL,
    PROBABILITIES,
    README,
    REFERENCE,
    SCALING,
    WEIGHTS,
    Bundle,
    encoder_file,
    verify,
)
from trainer.inference.bundle_reading import is_intact, read_bundle, read_card
from trainer.inference.bundle_readme import readme
from trainer.inference.card import BundleCard, ExportCard, FileCard

# Writes files that run without mmssl into the folder of a bundle.
WriteExports = Callable[[Bundle, Path], tuple[ExportCard, ...]]


def write_bundle(bundle: Bundle, folder: Path, exports: WriteExports | None = None) -> BundleCard:
    """Writes a bundle, whole or not at all, once it has been read back and has reproduced its check.

    A folder that holds this very bundle already is left as it is.

    Args:
        exports: writes what runs without mmssl; None for nothing.

    Raises:
        DataError: the folder holds something else; or an encoder is missing; or as `exports` raises.
        StorageError: the disk is full or refuses.
    """
    folder = folder if folder.name else folder.resolve()  # `.` has no name
    temporary = folder.with_name(f".{folder.name}.{this_process()}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, f".{folder.name}.*.partial")
        temporary.mkdir()
        card = _write_files(bundle, temporary, exports)
        verify(read_bundle(temporary), temporary)
        if os.path.lexists(folder):
            if not _holds(folder, card):
                raise DataError(
                    f"{folder} exists and holds something else", "choose another folder with --out, or delete this one"
                )
            return card
        flush(temporary)
        os.rename(temporary, folder)
        flush(folder.parent)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def _write_files(bundle: Bundle, folder: Path, exports: WriteExports | None) -> BundleCard:
    tensors: dict[str, Tensor] = {f"{MODEL}{name}": tensor for name, tensor in bundle.weights.items()}
    for name, scaling in bundle.scaling.items():
        tensors[f"{SCALING}{name}"] = torch.from_numpy(np.stack([scaling.mean, scaling.deviation]))
    all_modalities = max(bundle.references, default=0)
    for number, one in bundle.references.items():
        if bundle.card.subsets[number].given or number == all_modalities:
            tensors[f"{REFERENCE}{number}.latents"] = one.latents.half()
        tensors[f"{REFERENCE}{number}.distances"] = one.distances
        tensors[f"{REFERENCE}{number}.surprise"] = one.surprise
    tensors[LABELLED] = torch.from_numpy(bundle.labelled)
    write_tensor_file(folder / WEIGHTS, TensorFile(tensors, {}))
    arrays = {f"x.{name}": values for name, values in bundle.check.x.items()}
    arrays |= {"present": bundle.check.present, PROBABILITIES: bundle.check.probabilities}  # type: ignore[dict-item]
    write_npz(folder / CHECK, arrays)
    for name, path in bundle.encoders.items():
        try:
            shutil.copyfile(path, folder / encoder_file(name))
        except FileNotFoundError:
            raise DataError(f"there is no encoder {path}") from None
        flush(folder / encoder_file(name))
    made = exports(bundle, folder) if exports is not None else ()
    os.chmod(folder / WEIGHTS, (folder / CHECK).stat().st_mode)  # safetensors lets nobody else read it
    files = {
        path.name: FileCard(sha256=sha256(path), bytes=path.stat().st_size)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    }
    card = bundle.card.with_exports(made).model_copy(update={"files": files}).sealed()
    write_atomically(folder / README, readme(card))
    content = json.dumps(card.content(), indent=1, ensure_ascii=False)
    write_atomically(folder / CARD, content + "\n")
    return card


def _holds(folder: Path, card: BundleCard) -> bool:
    """Whether a folder holds this bundle, undamaged."""
    try:
        there = read_card(folder)
        return there.digest == card.digest and all(is_intact(folder, name, there) for name in there.files)
    except DataError:
        return False
