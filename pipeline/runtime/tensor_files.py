"""Tensors and plain values in one safetensors file, written whole or not at all, with a digest of everything."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.runtime.contents import other_kind_of
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path
from pipeline.runtime.processes import this_process

DAMAGE_HINT = "delete it and run the same command again: it starts from the beginning"


@dataclass(frozen=True)
class TensorFile:
    """Tensors by name, and the plain values stored with them."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def write_tensor_file(path: Path, file: TensorFile) -> None:
    """Writes a tensor file; tensors that are on the CPU already are not copied.

    Raises:
        StorageError: the disk is full or refuses; whatever was at `path` is untouched.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in file.tensors.items()}
    values = json.dumps(file.values, sort_keys=True)
    metadata = json.dumps({"digest": _digest(tensors, values), "values": values})
    with atomic_path(path) as temporary:
        # safetensors writes to a file `.tmpXXXXXX` next to its target, which no one could later trace to its process.
        folder = path.with_name(f".{path.name}.folder.{this_process()}.partial")
        try:
            folder.mkdir(exist_ok=True)
            save_file(tensors, folder / "state", {"mmssl": metadata})  # one key: the format does not order several
            (folder / "state").chmod(folder.stat().st_mode & 0o666)  # others may read it, as they may any new file
            (folder / "state").rename(temporary)
        except SafetensorError as error:  # the disk's own error, as text
            number = re.search(r"(?:os error|code:) (\d+)", str(error))  # as safetensors before 0.5 put it
            raise OSError(int(number[1]) if number else 0, str(error), str(temporary)) from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(temporary)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def read_tensor_file(path: Path) -> TensorFile:
    """Reads what `write_tensor_file` wrote.

    Raises:
        DataError: the file is missing, damaged or not a tensor file; nothing of it is used then.
    """
    try:
        with path.open("rb"), safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["mmssl"])
            # Copies: a file that shrinks under a memory map would crash the process.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        written, digest = metadata["values"], metadata["digest"]
        values = json.loads(written)
    except FileNotFoundError:
        raise DataError(f"there is no {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise _not_ours(path) from None
    if not isinstance(written, str) or not isinstance(values, dict):
        raise _not_ours(path)
    if _digest(tensors, written) != digest:
        raise DataError(f"{path} is damaged: its content does not match its digest", DAMAGE_HINT)
    return TensorFile(tensors, values)


def read_values(path: Path) -> dict[str, Any]:
    """Reads the plain values of a tensor file alone, which does not show whether its tensors are whole.

    Raises:
        DataError: the file is missing, damaged or not a tensor file.
    """
    try:
        with path.open("rb"), safe_open(path, framework="pt") as file:
            values = json.loads(json.loads((file.metadata() or {})["mmssl"])["values"])
    except FileNotFoundError:
        raise DataError(f"there is no {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise _not_ours(path) from None
    if not isinstance(values, dict):
        raise _not_ours(path)
    return values


def _not_ours(path: Path) -> DataError:
    other = other_kind_of(path)
    if other is not None:
        return DataError(f"{path} is {other.what}, not a safetensors file", other.hint or DAMAGE_HINT)
    return DataError(f"{path} is damaged, or was not written by mmssl", DAMAGE_HINT)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors on the CPU, with their names, types and shapes, in whatever order they come."""
    return _digest({name: tensor.contiguous() for name, tensor in tensors.items()}, "")


def _digest(tensors: Mapping[str, Tensor], values: str) -> str:
    digest = hashlib.sha256(values.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
