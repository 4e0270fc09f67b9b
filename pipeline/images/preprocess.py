"""From raw RGB-D frames to the image store: one Dask task per object; workers return arrays, this process writes.

Outputs that pass verification are kept, so the same command resumes after a stop or a crash. The store's bytes depend
neither on how many processes made it nor on how often they were stopped.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets import washington
from pipeline.datasets.locations import ARCHIVE, raw_folder
from pipeline.datasets.washington import Frame, Index
from pipeline.datasets.washington_splits import trials_of
from pipeline.images.contact_sheet import Preview, contact_sheet
from pipeline.images.depth import depth_flaw, encode_depth
from pipeline.images.resize import resize_rgb
from pipeline.images.store import (
    INDEX,
    Entry,
    ImageSettings,
    ImageStore,
    ObjectHeader,
    ObjectImages,
    StoreIndex,
    object_path,
    verify_object,
    write_object,
)
from pipeline.runtime.cluster import check_stop, run_tasks
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path, remove
from pipeline.runtime.interrupts import Stop, stop_requests
from pipeline.runtime.leases import lease

_log = logging.getLogger(__name__)
PREVIEW_FRAMES = 16
_LISTED = 10  # similar warnings that are logged one by one

Progress = Callable[[int, int], None]  # objects done, and in total


def store_folder(dataset: str, root: Path, settings: ImageSettings) -> Path:
    """The folder of a data set's store; settings other than the paper's have their own."""
    return root / "images" / f"{dataset}{settings.suffix}"


def process_object(name: str, frames: Sequence[Frame], settings: ImageSettings, strict: bool) -> ObjectImages:
    """Makes all images of one object: the task of a worker.

    Raises:
        DataError: no frame can be read, or (with `strict`) one cannot.
    """
    shape = (len(frames), settings.size, settings.size, 3)
    rgb, depth = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    ids: list[str] = []
    skipped: dict[str, str] = {}
    flawed: dict[str, str] = {}
    for frame in frames:
        try:
            crop = washington.read_frame(frame, corner=settings.depth_encoding == "normals")
        except DataError as error:
            if strict:
                raise
            skipped[frame.id] = error.message.replace(f"{frame.folder}{os.sep}", "")  # a store contains no paths
            continue
        rgb[len(ids)] = resize_rgb(crop.rgb, settings.size)
        depth[len(ids)] = encode_depth(crop.depth, settings.depth_encoding, corner=crop.corner, size=settings.size)
        if flaw := depth_flaw(crop.depth):
            flawed[frame.id] = flaw
        ids.append(frame.id)
    if not ids:
        raise DataError(f"not one frame of {name} can be read: {next(iter(skipped.values()))}", washington.FETCH_HINT)
    images = ObjectImages(name, tuple(ids), rgb[: len(ids)], depth[: len(ids)], skipped, flawed)
    _ = images.digest  # cached here and sent along: the only writer has enough to do
    return images


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
    _warn("left out", {skipped.name: skipped.reason for skipped in index.skipped})
    source = _source(raw, index)
    objects = _objects(index)
    stamps = {name: _stamp(frames) for name, frames in objects.items()}
    with stop_requests() as stop, ExitStack() as stack:
        headers = _existing(folder, settings, stamps, strict, stop, _log.debug)
        if len(headers) < len(stamps):
            stack.enter_context(lease(folder, folders=True))
            missing = {name: stamp for name, stamp in stamps.items() if name not in headers}
            headers |= _existing(
                folder, settings, missing, strict, stop, _log.warning
            )  # others may have made some meanwhile
        tasks = {name: (name, frames, settings, strict) for name, frames in objects.items() if name not in headers}
        if tasks:
            remove(folder / INDEX)  # the store is incomplete until it is written again
        total = len(stamps)
        for name, images in run_tasks(process_object, tasks, stop, workers=workers, scheduler=scheduler):
            headers[name] = write_object(object_path(folder, name), images, settings, stamps[name])
            _warn("left out", images.skipped)
            _warn("no shape in its depth", images.flawed)
            if progress is not None:
                progress(len(headers), total)
        if not tasks:
            _log.info("all %d objects existed already", total)
        return ImageStore.finish(folder, _index(dataset, source, settings, trials, index, headers))


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


def _stamp(frames: Sequence[Frame]) -> str:
    """Identifies an object's raw files by their names and sizes, without opening any."""
    sizes = []
    for frame in frames:
        paths = (frame.rgb, frame.depth, *([frame.loc] if frame.loc else []))
        try:
            sizes.append([frame.id, *(path.stat().st_size for path in paths)])
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _existing(
    folder: Path,
    settings: ImageSettings,
    stamps: Mapping[str, str],
    strict: bool,
    stop: Stop,
    log: Callable[..., None],
) -> dict[str, ObjectHeader]:
    """The headers of the objects that can be kept; logs why the others cannot."""
    headers: dict[str, ObjectHeader] = {}
    for name, stamp in stamps.items():
        path = object_path(folder, name)
        if not path.exists():
            continue
        check_stop(stop)
        try:
            header = verify_object(path)
        except DataError as error:
            log("%s; rebuilding it", error.message)
            continue
        if header.stamp != stamp:
            log("%s: its raw frames have changed; rebuilding it", path)
        elif header.name != name or dict(header.settings) != settings.model_dump():
            log("%s: was made with other settings; rebuilding it", path)
        elif strict and header.skipped:
            sample_id, reason = next(iter(header.skipped.items()))
            raise DataError(f"{sample_id}: {reason}", "without --strict such frames are listed and left out")
        else:
            headers[name] = header
    return headers


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


def _warn(problem: str, reasons: Mapping[str, str]) -> None:
    for name, reason in list(reasons.items())[:_LISTED]:
        _log.warning("%s: %s: %s", problem, name, reason)
    if len(reasons) > _LISTED:
        _log.warning("%s: %d more; %s lists them all", problem, len(reasons) - _LISTED, INDEX)


def _index(
    dataset: str,
    source: dict[str, Any],
    settings: ImageSettings,
    trials: washington.Trials,
    index: Index,
    headers: Mapping[str, ObjectHeader],
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
        versions=_distinct(headers[name].versions for name in order),
        trials=tuple(dict(trial) for trial in trials),
        objects={name: Entry(ids=headers[name].ids, digest=headers[name].digest) for name in order},
        skipped=skipped,
        flawed=flawed,
    )


def _distinct(versions: Iterable[Mapping[str, str]]) -> tuple[dict[str, str], ...]:
    distinct: list[dict[str, str]] = []
    distinct.extend(dict(entry) for entry in versions if dict(entry) not in distinct)
    return tuple(distinct)
