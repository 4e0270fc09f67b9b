"""What an output file holds, as a flat table from names to short values.

A number or a short text stands for itself, so that a comparison can show it; anything longer is replaced by a digest.
Names are the new ones of `expected.RENAMED`, and what `expected.VOLATILE` lists is left out.
"""

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from tests.golden.expected import RENAMED, VOLATILE

Table = dict[str, Any]  # values are what JSON can hold, and never an object or a list with anything in it
Places = Mapping[str, str]  # absolute path -> what stands for it in a recording

_LONGEST_TEXT = 200
_LONGEST_LIST = 32
# The end of a run folder's name is a digest of the settings, keys included, so it changes when a key is renamed.
_FINGERPRINT = re.compile(r"(-seed-\d+)-[0-9a-f]{8}(?![0-9a-f])")
_MADE = re.compile(r"Made \d{4}-\d\d-\d\d .* with mmssl .*")  # a line of the report


def of_file(path: Path, places: Places) -> Table:
    """The table of one file; its suffix says how it is read."""
    match path.suffix:
        case ".h5":
            return _of_hdf5(path, places)
        case ".safetensors":
            return _of_safetensors(path)
        case ".npz":
            return _of_npz(path)
        case ".json":
            return of_json(json.loads(path.read_text(encoding="utf-8")), places)
        case ".csv":
            return _of_csv(path)
        case ".md":
            lines = without_places(path.read_text(encoding="utf-8"), places).splitlines()
            kept = [line for line in lines if not _MADE.fullmatch(line)]
            return {f"line {number}": _short(line) for number, line in enumerate(kept, 1)}
        case ".txt":
            return {"text": _sha256(without_places(path.read_text(encoding="utf-8"), places).encode())}
        case _:
            return {"bytes": _sha256(path.read_bytes())}


def of_json(value: Any, places: Places) -> Table:
    """The table of a JSON value: `scores[0].accuracy` -> 0.5."""
    table: Table = {}
    _flatten(value, "", (), places, table)
    return table


def without_places(text: str, places: Places) -> str:
    """A text without absolute paths of the recording, and run folders in it without their fingerprints."""
    for path, name in places.items():
        text = text.replace(path, name)
    return _FINGERPRINT.sub(r"\1", text)


def renamed(keys: tuple[str, ...]) -> str:
    """The new name of the last of these keys, each of which stands under the one before it."""
    for old, new in RENAMED.items():
        parts = tuple(old.split("."))
        if keys[-len(parts) :] == parts:
            return new.rpartition(".")[2]
    return keys[-1]


def _flatten(value: Any, name: str, keys: tuple[str, ...], places: Places, table: Table) -> None:
    if isinstance(value, dict) and value:
        for key in value.keys() - VOLATILE:
            new = renamed((*keys, key))
            if new != key and new in value:
                raise ValueError(f"{name or 'the outermost object'} has both {key} and {new}")
            _flatten(value[key], f"{name}.{new}" if name else new, (*keys, key), places, table)
    elif isinstance(value, list) and value and (len(value) <= _LONGEST_LIST or isinstance(value[0], dict | list)):
        for index, item in enumerate(value):
            _flatten(item, f"{name}[{index}]", keys, places, table)
    elif isinstance(value, list) and value:
        table[name] = f"{len(value)} values {_sha256(without_places(json.dumps(value), places).encode())}"
    else:
        table[name] = _short(without_places(value, places)) if isinstance(value, str) else value


def _of_hdf5(path: Path, places: Places) -> Table:
    """Data sets by name, and attributes as `group@attribute`; those that are JSON texts are taken apart."""
    table: Table = {}

    def add(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset):
            text = h5py.check_string_dtype(node.dtype) is not None
            table[name] = _of_array(node.asstr()[...].astype(np.str_) if text else node[...])
        if node.attrs:
            attributes = of_json({key: _parsed(value) for key, value in node.attrs.items()}, places)
            table.update({f"{name}@{key}": value for key, value in attributes.items()})

    with h5py.File(path, "r") as file:
        add("", file)
        file.visititems(add)
    return table


def _parsed(value: Any) -> Any:
    """An HDF5 attribute as what JSON can hold."""
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, np.bytes_ | bytes):
        value = value.decode()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value.startswith(("{", "[")):
        return json.loads(value)
    return value


def _of_safetensors(path: Path) -> Table:
    """Tensors by name. The metadata holds a digest of settings, so of it is kept only that it can be read."""
    with safe_open(path, framework="numpy") as file:
        for text in (file.metadata() or {}).values():
            json.loads(text)
        return {name: _of_array(file.get_tensor(name)) for name in sorted(file.keys())}


def _of_npz(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as file:
        return {name: _of_array(file[name]) for name in sorted(file.files)}


def _of_csv(path: Path) -> Table:
    """Values by column, in the order of the rows."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, strict=True)
    columns = {renamed((name,)): [row[k] for row in rows] for k, name in enumerate(header)}
    return {name: _short(" ".join(values)) for name, values in columns.items() if name not in VOLATILE}


def _of_array(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)} {_sha256(np.ascontiguousarray(array).tobytes())}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{len(text)} characters {_sha256(text.encode())}"


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"  # enough to tell files apart, and short to read
