"""What a workspace holds of a person's own data: imported pictures, and shards that no data set of ours makes."""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.datasets.catalogue import DataSetEntry
from pipeline.datasets.names import is_built_in
from pipeline.images.store import ImageSettings, ImageStore, ImportedRows
from pipeline.runtime.errors import MmsslError
from pipeline.shards.schema import VALIDATION
from pipeline.shards.shard import Shard
from pipeline.sources.rows import CAMERAS

_log = logging.getLogger(__name__)
_OF_A_SPLIT = re.compile(r".*-split-\d+")
LICENCE = "your own"


def list_own_data(root: Path) -> Iterator[DataSetEntry]:
    """Shards by name, then pictures that have no shard yet; what is damaged is logged."""
    listed = set()
    for path in sorted(_visible(root / "shards", "*.h5")):
        name = path.stem
        if is_built_in(name) or name.endswith(VALIDATION) or _OF_A_SPLIT.fullmatch(name):
            continue
        try:
            yield _of_shard(path)
        except MmsslError as error:
            _log.warning("%s", error.message)
        listed.add(name)
    for folder in sorted(_visible(root / "images", "*/")):
        try:
            store = ImageStore.open(folder)
        except MmsslError as error:
            _log.warning("%s", error.message)
            continue
        if store.index.rows is not None and store.index.dataset not in listed:
            yield _of_pictures(store, store.index.rows)


def _of_shard(path: Path) -> DataSetEntry:
    shard = Shard.open(path)
    labelled = sum(int((part.labels >= 0).sum()) for part in (shard.train, shard.test))
    words = _words(shard.train.rows + shard.test.rows, labelled, shard.classes, (m.name for m in shard.modalities))
    return DataSetEntry(path.stem, words, path.stat().st_size, LICENCE, path)


def _of_pictures(store: ImageStore, rows: ImportedRows) -> DataSetEntry:
    name, folder, settings = store.index.dataset, store.folder, store.index.settings
    cameras = [camera for camera in CAMERAS if store.has(camera).any()]
    words = _words(len(rows.labels), sum(label >= 0 for label in rows.labels), rows.classes, cameras)
    defaults = ImageSettings()
    command = f"mmssl extract --data {name}"
    command += "" if settings.size == defaults.size else f" --size {settings.size}"
    command += (
        "" if settings.depth_encoding == defaults.depth_encoding else f" --depth-encoding {settings.depth_encoding}"
    )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return DataSetEntry(name, f"{words}; pictures, which `{command}` encodes", size, LICENCE, folder)


def _words(rows: int, labelled: int, classes: tuple[str, ...], modalities: Iterable[str]) -> str:
    return f"{rows:,} rows of {', '.join(modalities)}; {labelled:,} labelled, {len(classes)} classes"


def _visible(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.glob(pattern) if not path.name.startswith(".")]
