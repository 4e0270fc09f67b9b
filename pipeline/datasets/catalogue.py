"""The data sets by name: which there are, where they lie, fetching and verifying them."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets import manifests, washington
from pipeline.datasets.archives import unpack
from pipeline.datasets.locations import ARCHIVE, REAL, SAMPLE, raw_folder
from pipeline.datasets.registry import cards
from pipeline.runtime.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """A data set: its size in bytes, and where it lies, or None where it is not at hand."""

    name: str
    title: str
    size: int
    licence: str
    place: Path | None


def known(root: Path) -> list[Known]:
    """Every data set with a manifest, those that are built from them or bundled, and the rendered sample."""
    found = []
    for name in manifests.names():
        manifest = manifests.load(name)
        found.append(
            Known(name, manifest.title, sum(f.size for f in manifest.files), manifest.licence, _place(manifest, root))
        )
    for card in cards():
        shard = root / "shards" / f"{card.name}.h5"
        found.append(Known(card.name, card.title, 0, "-", shard if shard.exists() else None))
    found.append(Known(SAMPLE, "a rendered RGB-D data set in the same layout", 0, "this project's", _raw(SAMPLE, root)))
    return found


def fetch(name: str, root: Path) -> list[str]:
    """Gets a data set, and unpacks it where it is an archive; does nothing where it is there.

    Returns:
        For the RGB-D archive, every deviation from the facts that are known of it; otherwise nothing.

    Raises:
        DataError: no such data set, no address works, or a file has the wrong bytes.
        StorageError: the disk is full or refuses.
    """
    if name in (ARCHIVE, REAL):
        if _raw(REAL, root) is None:
            unpack(_archive(root), root / "raw" / ARCHIVE / "unpacked")
        return deviations(root)
    manifests.fetch(name, root / "raw")
    return []


def verify(name: str, root: Path) -> list[str]:
    """Holds a data set that is at hand against its manifest.

    Returns:
        Every deviation, one sentence each; empty where all is well.

    Raises:
        DataError: no such data set, or it is not at hand.
    """
    if name in (ARCHIVE, REAL):
        return deviations(root)
    manifest = manifests.load(name)
    folder = _place(manifest, root)
    if folder is None:
        raise DataError(f"{name} is not at hand", f"`mmssl data fetch {name}` gets it")
    found = []
    for file in manifest.files:
        try:
            manifests.verify(file, folder / file.name)
        except DataError as error:
            found.append(error.message)
    return found


def deviations(root: Path) -> list[str]:
    """How the RGB-D data set at hand differs from the facts known of it."""
    index = washington.index_dataset(raw_folder(REAL, root))
    return [f"left out: {skipped}" for skipped in index.skipped] + washington.deviations(index, washington.load_facts())


def _archive(root: Path) -> Path:
    """The archive: placed by hand in `raw/` or `raw/washington-rgbd/`, else fetched."""
    manifest = manifests.load(ARCHIVE)
    (file,) = manifest.files
    raw = root / "raw"
    for path in (raw / ARCHIVE / file.name, raw / file.name):
        if path.exists():
            try:
                manifests.verify(file, path)
            except DataError as error:
                # The site publishes no checksum, and ours is second-hand: what is inside decides.
                _log.warning("%s; it is taken all the same, for that checksum is only reported", error.message)
            return path
    return manifests.fetch(manifest, raw)[file.name]


def _place(manifest: manifests.Manifest, root: Path) -> Path | None:
    if manifest.name == ARCHIVE:
        return _raw(REAL, root)
    shared = os.environ.get("MMSSL_DATA")
    for folder in (root / "raw" / manifest.name, *([Path(shared) / manifest.name] if shared else [])):
        if all((folder / file.name).is_file() for file in manifest.files):
            return folder
    return None


def _raw(dataset: str, root: Path) -> Path | None:
    try:
        return raw_folder(dataset, root)
    except DataError:
        return None
