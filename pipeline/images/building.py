"""Makes an image store of frames, whatever their source: one Dask task per object; workers return arrays, one writes.

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

import numpy as np

from pipeline.images.depth import depth_flaw, encode_depth
from pipeline.images.frames import Frame
from pipeline.images.resize import resize_rgb
from pipeline.images.store import (
    INDEX,
    ImageSettings,
    ImageStore,
    ObjectHeader,
    ObjectImages,
    StoreIndex,
    object_path,
    verify_object,
    write_object,
)
from pipeline.runtime.cluster import run_tasks
from pipeline.runtime.errors import DataError, NewerError
from pipeline.runtime.files import remove
from pipeline.runtime.interrupts import Stop, check_stop, stop_requests
from pipeline.runtime.leases import lease

_log = logging.getLogger(__name__)
_LISTED = 10  # similar warnings that are logged one by one

Progress = Callable[[int, int], None]  # objects done, and in total
Headers = Mapping[str, ObjectHeader]  # object's name -> what its file says


def process_object(name: str, frames: Sequence[Frame], settings: ImageSettings, strict: bool) -> ObjectImages:
    """Makes all images of one object: the task of a worker. What a frame lacks becomes a black image.

    Raises:
        DataError: with `strict`, a frame cannot be read.
    """
    shape = (len(frames), settings.size, settings.size, 3)
    rgb, depth = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    ids: list[str] = []
    skipped: dict[str, str] = {}
    flawed: dict[str, str] = {}
    for frame in frames:
        try:
            crop = frame.read(corner=settings.depth_encoding == "normals")
        except DataError as error:
            if strict:
                raise
            skipped[frame.id] = error.message.replace(f"{frame.folder}{os.sep}", "")  # a store contains no paths
            continue
        if crop.rgb is not None:
            rgb[len(ids)] = resize_rgb(crop.rgb, settings.size)
        if crop.depth is not None:
            depth[len(ids)] = encode_depth(crop.depth, settings.depth_encoding, corner=crop.corner, size=settings.size)
            if flaw := depth_flaw(crop.depth):
                flawed[frame.id] = flaw
        ids.append(frame.id)
    images = ObjectImages(name, tuple(ids), rgb[: len(ids)], depth[: len(ids)], skipped, flawed)
    _ = images.digest  # cached here and sent along: the only writer has enough to do
    return images


def build_store(
    folder: Path,
    objects: Mapping[str, Sequence[Frame]],
    settings: ImageSettings,
    index: Callable[[Headers], StoreIndex],
    *,
    stamps: Mapping[str, str] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ImageStore:
    """Makes or completes an image store.

    Args:
        folder: the store's.
        objects: name -> frames; each becomes one file.
        index: makes the index of the finished objects.
        stamps: object's name -> what identifies its raw files; by default their names and sizes.
        strict: an unreadable frame is an error; otherwise it is listed and left out.
        progress: called with the number of objects done and the total.

    Raises:
        DataError: with `strict`, a frame cannot be read.
        LeasedError: another process is making this store.
        StorageError: the disk is full or refuses.
        Interrupted: SIGTERM or Ctrl-C; finished objects are kept.
    """
    stamps = stamps or {name: stamp_of(frames) for name, frames in objects.items()}
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
        sources = sorted({frames[0].folder for frames in objects.values() if frames})
        for name, images in run_tasks(
            process_object, tasks, stop, workers=workers, scheduler=scheduler, shared=sources
        ):
            headers[name] = write_object(object_path(folder, name), images, settings, stamps[name])
            warn("left out", images.skipped)
            warn("no shape in its depth", images.flawed)
            if progress is not None:
                progress(len(headers), total)
        if not tasks:
            _log.info("all %d objects existed already", total)
        return ImageStore.finish(folder, index(headers))


def stamp_of(frames: Sequence[Frame]) -> str:
    """Identifies an object's raw files by their names and sizes, without opening any; those that are gone have none."""
    sizes = [[frame.id, *map(_size, frame.files)] for frame in frames]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # reading it says why
        return None


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
        except NewerError:
            raise
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


def warn(problem: str, reasons: Mapping[str, str]) -> None:
    """Logs frames with a problem: the first few one by one, and how many more there are."""
    for name, reason in list(reasons.items())[:_LISTED]:
        _log.warning("%s: %s: %s", problem, name, reason)
    if len(reasons) > _LISTED:
        _log.warning("%s: %d more; %s lists them all", problem, len(reasons) - _LISTED, INDEX)


def distinct(versions: Iterable[Mapping[str, str]]) -> tuple[dict[str, str], ...]:
    """Each of these versions once, in order."""
    known: list[dict[str, str]] = []
    known.extend(dict(entry) for entry in versions if dict(entry) not in known)
    return tuple(known)
