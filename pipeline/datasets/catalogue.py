"""The data sets by name: listing, locating, fetching and verifying them."""

import logging
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets import manifests, mfeat, washington, washington_index
from pipeline.datasets.archives import unpack
from pipeline.datasets.locations import ARCHIVE, REAL, SAMPLE, archives_at_hand, raw_folder
from pipeline.datasets.registry import cards
from pipeline.runtime.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSetEntry:
    """A data set: its size in bytes, and the path where it lies, or None if it is not available."""

    name: str
    title: str
    size: int
    licence: str
    place: Path | None


def list_data_sets(root: Path) -> list[DataSetEntry]:
    """Every data set with a manifest, every one built from those or bundled, and the rendered sample."""
    entries = []
    for name in manifests.names():
        manifest = manifests.load(name)
        entries.append(
            DataSetEntry(
                name, manifest.title, sum(f.size for f in manifest.files), manifest.licence, _place(manifest, root)
            )
        )
    for card in cards():
        if card.name in manifests.names():  # listed above
            continue
        shard = root / "shards" / f"{card.name}.h5"
        entries.append(DataSetEntry(card.name, card.title, 0, "-", shard if shard.exists() else None))
    entries.append(
        DataSetEntry(SAMPLE, "a rendered RGB-D data set in the same layout", 0, "this project's", _raw(SAMPLE, root))
    )
    return entries


def fetch(name: str, root: Path) -> list[str]:
    """Fetches a data set, and unpacks it if it is an archive; does nothing if it is there already.

    No address of mfeat's files is known: if they are not there, the error says where to get them.

    Returns:
        For the RGB-D archive, every deviation from the known facts about it; otherwise nothing.

    Raises:
        DataError: no such data set, no address works, or a file has the wrong bytes.
        StorageError: the disk is full or refuses.
    """
    if name in (ARCHIVE, REAL):
        if _raw(REAL, root) is None:
            unpack(_archive(root), root / "raw" / ARCHIVE / "unpacked")
        return deviations(root)
    if name == mfeat.NAME:
        mfeat.locate(root / "raw")
    else:
        manifests.fetch(name, root / "raw")
    return []


def verify(name: str, root: Path) -> list[str]:
    """Checks an available data set against its manifest.

    Returns:
        Every deviation, one sentence each; empty if there is none.

    Raises:
        DataError: no such data set, it is not available, or one of mfeat's views is damaged.
    """
    if name in (ARCHIVE, REAL):
        return deviations(root)
    if name == mfeat.NAME:
        paths = mfeat.locate(root / "raw")
        mfeat.read(paths)
        unknown = [path.name for path in paths.values() if not mfeat.is_csv(path)]
        if unknown:
            _log.warning("no checksum is known of %s: only the format was checked", ", ".join(unknown))
        return []
    manifest = manifests.load(name)
    if _place(manifest, root) is None:
        raise DataError(f"{name} is not available", f"`mmssl data fetch {name}` fetches it")
    faults = []
    for file in manifest.files:
        try:
            manifests.find(file, manifests.places(root / "raw", manifest.name, *manifest.folders))
        except DataError as error:
            faults.append(error.message)
    return faults


def deviations(root: Path) -> list[str]:
    """How the available RGB-D data set differs from the known facts about it."""
    index = washington_index.index_dataset(raw_folder(REAL, root))
    return [f"left out: {skipped}" for skipped in index.skipped] + washington_index.deviations(
        index, washington.load_facts()
    )


def _archive(root: Path) -> Path:
    """The archive, placed by hand in any wrapping, or fetched."""
    manifest = manifests.load(ARCHIVE)
    (file,) = manifest.files
    for path in archives_at_hand(root):
        try:
            manifests.verify(file, path)
        except DataError as error:
            # The site publishes no checksum, and ours is second-hand: the content decides.
            _log.warning("%s; used anyway: this checksum is advisory", error.message)
        return path
    return manifests.fetch(manifest, root / "raw")[file.name]


def _place(manifest: manifests.Manifest, root: Path) -> Path | None:
    if manifest.name == ARCHIVE:
        return _raw(REAL, root)
    folders = manifests.places(root / "raw", manifest.name, *manifest.folders)
    for folder in folders:
        if manifest.name == mfeat.NAME and all((folder / f"mfeat-{view}").is_file() for view in mfeat.VIEWS):
            return folder
        if all(any((folder / name).is_file() for name in file.names) for file in manifest.files):
            return folder
    return None


def _raw(dataset: str, root: Path) -> Path | None:
    try:
        return raw_folder(dataset, root)
    except DataError:
        return None
