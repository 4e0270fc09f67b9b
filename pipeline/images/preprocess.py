"""The image store of frames in the Washington layout: their objects, trials and provenance."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets import washington
from pipeline.datasets.locations import ARCHIVE, raw_folder
from pipeline.datasets.washington import Frame, Index
from pipeline.datasets.washington_splits import trials_of
from pipeline.images.building import Headers, Progress, build_store, distinct, warn
from pipeline.images.contact_sheet import Preview, contact_sheet
from pipeline.images.store import Entry, ImageSettings, ImageStore, StoreIndex, store_folder
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path

__all__ = ["Progress", "preprocess", "preview", "store_folder"]

_log = logging.getLogger(__name__)
PREVIEW_FRAMES = 16


def preprocess(
    dataset: str,
    root: Path,
    settings: ImageSettings,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ImageStore:
    """Makes or completes the image store of a data set.

    Args:
        root: the workspace. With a scheduler, every worker must find the raw data under the same path.
        strict: a frame with a missing or unreadable partner is an error; otherwise it is listed and left out.
        progress: called with the number of objects done and the total.

    Raises:
        DataError: there is no data set, an object has no readable frame, or a frame lacks what the encoding needs.
        LeasedError: another process is making this store.
        StorageError: the disk is full or refuses.
        Interrupted: SIGTERM or Ctrl-C; finished objects are kept.
    """
    raw = raw_folder(dataset, root)
    index = washington.index_dataset(raw, strict=strict)
    _check_corners(index, settings)
    trials = trials_of(raw)
    folder = store_folder(dataset, root, settings)
    _log.info("%s: %d frames of %d objects in %s", dataset, len(index.frames), len(index.objects), raw)
    warn("left out", {skipped.name: skipped.reason for skipped in index.skipped})
    source = _source(raw, index)
    return build_store(
        folder,
        _objects(index),
        settings,
        lambda headers: _index(dataset, source, settings, trials, index, headers),
        workers=workers,
        scheduler=scheduler,
        strict=strict,
        progress=progress,
    )


def preview(dataset: str, root: Path, settings: ImageSettings, path: Path) -> None:
    """Draws frames from the whole data set, raw and processed, into a PNG file.

    Raises:
        DataError: there is no data set, or one of the frames cannot be read.
        StorageError: the disk is full or refuses.
    """
    index = washington.index_dataset(raw_folder(dataset, root))
    _check_corners(index, settings)
    groups = list(index.objects.values())
    chosen = [groups[k] for k in np.unique(np.linspace(0, len(groups) - 1, PREVIEW_FRAMES).astype(int))]
    frames = [group[len(group) // 2] for group in chosen]
    previews = []
    for frame in frames:
        crop = washington.read_frame(frame)
        previews.append(Preview(frame.id, crop.rgb, crop.depth, crop.corner))
    with atomic_path(path) as temporary:
        contact_sheet(previews, settings.depth_encoding).save(temporary, format="PNG")


def _objects(index: Index) -> dict[str, tuple[Frame, ...]]:
    return {f"{category}_{number}": frames for (category, number), frames in index.objects.items()}


def _check_corners(index: Index, settings: ImageSettings) -> None:
    if settings.depth_encoding == "normals":
        lacking = [frame.id for frame in index.frames if frame.loc is None]
        if lacking:
            raise DataError(
                f"surface normals need a crop's position in the frame, but {lacking[0]}_loc.txt is missing "
                f"({len(lacking)} frames have none)",
                "use --depth-encoding jet, or get the archive with the loc files",
            )


def _source(raw: Path, index: Index) -> dict[str, Any]:
    """Identifies the raw data; warns if the real data set is incomplete."""
    from pipeline.sample.render import settings_of  # not at the top, or every worker would load the renderer

    settings = settings_of(raw)
    if settings is not None:
        return {"rendered": settings}
    facts = washington.load_facts()
    deviations = washington.deviations(index, facts)
    if deviations:
        _log.warning(
            "this is not the complete data set: %s; `mmssl data verify %s` lists all %d deviations",
            "; ".join(deviations[-3:]),
            ARCHIVE,
            len(deviations),
        )
    return {"manifest": ARCHIVE, "deviations": deviations}


def _index(
    dataset: str,
    source: dict[str, Any],
    settings: ImageSettings,
    trials: washington.Trials,
    index: Index,
    headers: Headers,
) -> StoreIndex:
    order = list(_objects(index))
    skipped = {skipped.name: skipped.reason for skipped in index.skipped}
    flawed: dict[str, str] = {}
    for name in order:
        skipped |= headers[name].skipped
        flawed |= headers[name].flawed
    return StoreIndex(
        dataset=dataset,
        source=source,
        settings=settings,
        versions=distinct(headers[name].versions for name in order),
        trials=tuple(dict(trial) for trial in trials),
        objects={name: Entry(ids=headers[name].ids, digest=headers[name].digest) for name in order},
        skipped=skipped,
        flawed=flawed,
    )
