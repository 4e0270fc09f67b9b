"""The image store: square images of RGB-D frames, one HDF5 file per object and an index over them (docs/guide/rgbd.md).

`<object>.h5` holds `rgb` and `depth`, uint8 `[N, size, size, 3]`, and `id [N]`; its root's attributes say how it was
made. `index.json` names every object, its frames and its digest; it is written last, so if it exists, the store is
complete. None of them contains the time or a path: equal frames give equal bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.images.depth import DepthEncoding
from pipeline.images.resize import SIZE, Bytes
from pipeline.runtime import hdf5
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path, write_atomically
from pipeline.runtime.versions import check_known, newer, versions

SCHEMA = 1
RECIPE = 1  # the version of the processing: raised when the same settings give other pixels
INDEX = "index.json"
ImageModality = Literal["rgb", "depth"]
MODALITIES: tuple[ImageModality, ...] = ("rgb", "depth")
_TEXTS = ("name", "stamp", "digest")
_OBJECTS = ("settings", "versions", "skipped", "flawed")
MAKE_HINT = "`mmssl preprocess rgbd` builds it"


class ImageSettings(BaseModel):
    """What determines an image, given its frame: its side in pixels, and how depth becomes three channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=SIZE, ge=32, le=1024)
    depth_encoding: DepthEncoding = "jet"
    recipe: int = RECIPE

    @property
    def suffix(self) -> str:
        """Distinguishes stores with settings other than the paper's: `-normals`, `-224`, ..."""
        encoding = "" if self.depth_encoding == "jet" else f"-{self.depth_encoding}"
        return encoding + ("" if self.size == SIZE else f"-{self.size}")


@dataclass(frozen=True)
class ObjectImages:
    """All images of one object, and what was noticed while making them.

    Attributes:
        name: such as `bell_pepper_2`.
        ids: N sample ids.
        rgb: uint8 `[N, size, size, 3]`.
        depth: uint8 `[N, size, size, 3]`, encoded.
        skipped: sample id -> why the frame was left out.
        flawed: sample id -> why its depth carries no shape; the frame is included.
    """

    name: str
    ids: tuple[str, ...]
    rgb: Bytes
    depth: Bytes
    skipped: Mapping[str, str]
    flawed: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """sha256 of the content, 64 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps([self.name, self.ids, self.rgb.shape]).encode())
        for pixels in (self.rgb, self.depth):
            digest.update(np.ascontiguousarray(pixels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class ObjectHeader:
    """An object's file without its pixels; `stamp` identifies the raw files it was made from."""

    name: str
    ids: tuple[str, ...]
    skipped: Mapping[str, str]
    flawed: Mapping[str, str]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    stamp: str
    digest: str


def write_object(path: Path, images: ObjectImages, settings: ImageSettings, stamp: str) -> ObjectHeader:
    """Writes the file of one object, whole or not at all.

    Raises:
        StorageError: the disk is full or refuses.
    """
    header = ObjectHeader(
        images.name,
        images.ids,
        images.skipped,
        images.flawed,
        settings.model_dump(),
        versions("numpy", "pillow", "scipy"),
        stamp,
        images.digest,
    )
    with atomic_path(path) as temporary, hdf5.creating(temporary) as (file, check_disk):
        for name, pixels in (("rgb", images.rgb), ("depth", images.depth)):
            hdf5.write_rows(file, name, pixels)
            check_disk()
        hdf5.write_rows(file, "id", np.array(images.ids, np.str_))
        hdf5.write_attribute(file, "schema", SCHEMA)
        for name in _TEXTS:
            hdf5.write_attribute(file, name, getattr(header, name))
        for name in _OBJECTS:
            hdf5.write_attribute(file, name, json.dumps(getattr(header, name), sort_keys=True))
    return header


def read_header(path: Path) -> ObjectHeader:
    """Reads everything in an object's file but the pixels.

    Raises:
        DataError: it is missing, damaged, or not a file of an image store.
    """
    with hdf5.reading(path) as file:
        schema = hdf5.attribute(path, file, "schema")
        if type(schema) is int and schema > SCHEMA:
            raise newer(path, f"schema {schema}", f"reads schema {SCHEMA}")
        if schema != SCHEMA:
            raise DataError(f"{path}: is not an object of an image store of schema {SCHEMA}", MAKE_HINT)
        ids = tuple(hdf5.read_text(path, hdf5.dataset(path, file, "id")).tolist())
        texts: dict[str, Any] = {name: str(hdf5.attribute(path, file, name)) for name in _TEXTS}
        objects = {name: hdf5.parse_json(path, name, hdf5.attribute(path, file, name), dict) for name in _OBJECTS}
        expected = (len(ids), *(objects["settings"].get("size"),) * 2, 3)
        for modality in MODALITIES:
            source = hdf5.dataset(path, file, modality)
            if source.dtype != np.uint8 or source.shape != expected:
                raise DataError(f"{path}: {modality} is {source.dtype} {source.shape}, not uint8 {expected}", MAKE_HINT)
    return ObjectHeader(ids=ids, **texts, **objects)


def read_pixels(path: Path, modality: ImageModality) -> Iterator[Bytes]:
    """Yields an object's images in order, `[n, size, size, 3]`, one chunk of the file at a time.

    Raises:
        DataError: the file is missing or damaged.
    """
    with hdf5.reading(path) as file:
        source = hdf5.dataset(path, file, modality)
        step = source.chunks[0] if source.chunks else max(1, len(source))
        for start in range(0, len(source), step):
            yield hdf5.read(path, source, slice(start, start + step))


def verify_object(path: Path) -> ObjectHeader:
    """Reads every byte of an object's file and checks it against its digest.

    Raises:
        DataError: it is missing, damaged, or was changed.
    """
    header = read_header(path)
    side = header.settings["size"]
    nothing = np.empty((0, side, side, 3), np.uint8)
    rgb, depth = (np.concatenate([nothing, *read_pixels(path, modality)]) for modality in MODALITIES)
    if ObjectImages(header.name, header.ids, rgb, depth, {}, {}).digest != header.digest:
        raise DataError(f"{path}: its content does not match its digest, so it was changed or damaged", MAKE_HINT)
    return header


class Entry(BaseModel):
    """One object in the index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[str, ...]
    digest: str


class ImportedRows(BaseModel):
    """What a person's own data says of its N frames, in the store's order; Washington's frames say it by their names.

    Attributes:
        classes: the K class names.
        labels: a class index, or -1 if the frame has no label.
        groups: what a split must not cut through, such as an object or a recording; empty for a frame of its own.
        test: whether the frame belongs to the test part.
        lacking: by image modality, the numbers of the frames that lack it; their images are black.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    groups: tuple[str, ...]
    test: tuple[bool, ...]
    lacking: dict[ImageModality, tuple[int, ...]] = {}


class StoreIndex(BaseModel):
    """`index.json`: everything that splits and provenance need, so that the raw data may be deleted.

    Attributes:
        dataset: its name.
        source: identifies the raw data: the rendered sample's settings, or the manifest's name.
        versions: those that made the objects; several if the store was completed after an upgrade.
        trials: for each trial, category -> the number of the object that is left out.
        objects: name -> frames and digest, in order.
        skipped: sample id -> why the frame was left out.
        flawed: sample id -> why its depth carries no shape; the frame is included.
        rows: labels and parts of imported frames; None for Washington's layout, which has trials instead.
        sha256: of all other fields; empty in an index written before it was introduced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    dataset: str
    source: dict[str, Any]
    settings: ImageSettings
    versions: tuple[dict[str, str], ...]
    trials: tuple[dict[str, int], ...]
    objects: dict[str, Entry]
    skipped: dict[str, str]
    flawed: dict[str, str]
    rows: ImportedRows | None = None
    sha256: str = ""

    def fingerprint(self) -> str:
        """sha256 of everything but `sha256`, and `rows` where there are none, as before they were introduced."""
        absent = {"rows"} if self.rows is None else set[str]()
        return hashlib.sha256(self.model_dump_json(exclude={"sha256", *absent}).encode()).hexdigest()


@dataclass(frozen=True)
class ImageStore:
    """A complete store."""

    folder: Path
    index: StoreIndex

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens a store.

        Raises:
            DataError: there is none, it is incomplete, or its index is damaged.
        """
        path = folder / INDEX
        try:
            index = StoreIndex.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            state = "is not complete" if folder.is_dir() else "does not exist"
            raise DataError(f"the image store {folder} {state}: there is no {INDEX} in it", MAKE_HINT) from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            check_known(path, error)
            first = error.errors()[0]
            if first["loc"] == ("schema_version",) and type(first["input"]) is int and first["input"] > 1:
                raise newer(path, f"schema {first['input']}", "reads schema 1") from None
            raise DataError(f"{path}: is not the index of an image store: {_first(error)}", MAKE_HINT) from None
        if index.sha256 and index.sha256 != index.fingerprint():
            raise DataError(f"{path}: its content does not match its checksum, so it was changed or damaged", MAKE_HINT)
        return cls(folder, index)

    @classmethod
    def finish(cls, folder: Path, index: StoreIndex) -> Self:
        """Writes the index, once all objects are written.

        Raises:
            StorageError: the disk is full or refuses.
        """
        index = index.model_copy(update={"sha256": index.fingerprint()})
        content = (index.model_dump_json(indent=1, exclude={"rows"} if index.rows is None else None) + "\n").encode()
        path = folder / INDEX
        if (
            not path.is_file() or path.read_bytes() != content
        ):  # else nothing to do: a complete store may lie on a read-only disk
            write_atomically(path, content)
        return cls(folder, index)

    @cached_property
    def digest(self) -> str:
        """sha256 of all pixels, ids and settings: two stores with the same digest give the same features."""
        content = [self.index.settings.model_dump(), {name: entry.digest for name, entry in self.index.objects.items()}]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Every sample id, in the order of `blocks`."""
        return tuple(name for entry in self.index.objects.values() for name in entry.ids)

    def has(self, modality: ImageModality) -> NDArray[np.bool_]:
        """Which frames have a modality, bool `[N]`, in the order of `ids`."""
        present = np.ones(len(self.ids), np.bool_)
        if self.index.rows is not None:
            present[list(self.index.rows.lacking.get(modality, ()))] = False
        return present

    def blocks(self, modality: ImageModality) -> Iterator[Bytes]:
        """Yields every image of a modality once and in order, `[n, size, size, 3]`, about 1 MiB at a time.

        Raises:
            DataError: an object's file is missing, damaged, or not the one that the index names.
        """
        for name in self.index.objects:
            yield from read_pixels(self._path(name), modality)

    def images(self, modality: ImageModality, ids: Sequence[str]) -> Bytes:
        """Reads the images of some samples, `[n, size, size, 3]`, in the store's order (that of `self.ids`).

        Raises:
            DataError: as `blocks`.
        """
        wanted = set(ids)
        blocks: list[NDArray[np.uint8]] = []
        for name, entry in self.index.objects.items():
            mask = np.array([sample in wanted for sample in entry.ids])
            if mask.any():
                start = 0
                for block in read_pixels(self._path(name), modality):
                    blocks.append(block[mask[start : start + len(block)]])
                    start += len(block)
        return np.concatenate(blocks)

    def _path(self, name: str) -> Path:
        path = object_path(self.folder, name)
        header = read_header(path)
        if header.digest != self.index.objects[name].digest:
            raise DataError(f"{path}: is not the file that {INDEX} names", MAKE_HINT)
        return path


def store_folder(dataset: str, root: Path, settings: ImageSettings) -> Path:
    """The folder of a data set's store in a workspace; settings other than the paper's have their own."""
    return root / "images" / f"{dataset}{settings.suffix}"


def object_path(folder: Path, name: str) -> Path:
    """The path of an object's file in a store."""
    return folder / f"{name}.h5"


def _first(error: ValidationError) -> str:
    details = error.errors()[0]
    return f"{'.'.join(map(str, details['loc']))}: {details['msg']}"
