"""The image store of frames in the Washington layout: their objects, trials and provenance."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.datasets import washington
from pipeline.datasets.locations import ARCHIVE, raw_folder
from pipeline.datasets.pictures import picture_facts
from pipeline.datasets.washington import Frame
from pipeline.datasets.washington_index import (
    ALL_HINT,
    EVALUATION,
    Index,
    Skipped,
    Taken,
    deviations,
    index_dataset,
)
from pipeline.datasets.washington_splits import TRIALS_HINT, misfit, object_trials, trials_of
from pipeline.images.building import Headers, Progress, build_store, distinct, warn
from pipeline.images.contact_sheet import draw
from pipeline.images.store import Entry, ImageSettings, ImageStore, StoreIndex, store_folder
from pipeline.runtime.errors import DataError
from pipeline.sources.survey import sample_of

__all__ = ["Progress", "preprocess", "preview", "store_folder"]

_log = logging.getLogger(__name__)
WhichTrials = Literal["official", "objects"]
PREVIEW_FRAMES = 16


def preprocess(
    dataset: str,
    root: Path,
    settings: ImageSettings,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    strict: bool = False,
    taken: Taken = "evaluation",
    trials: WhichTrials = "official",
    progress: Progress | None = None,
) -> ImageStore:
    """Makes or completes the image store of a data set.

    Args:
        root: the workspace. With a scheduler, every worker must find the raw data under the same path.
        strict: a frame with a missing or unreadable partner is an error; otherwise it is listed and left out.
        taken: the frames of the evaluation set, or all.
        trials: the official ones (or those of the data's own file), or some that leave out one object after the other.
        progress: called with the number of objects done and the total.

    Raises:
        DataError: there is no data set, not one frame can be read, or all lack what the encoding needs.
        LeasedError: another process is making this store.
        StorageError: the disk is full or refuses.
        Interrupted: SIGTERM or Ctrl-C; finished objects are kept.
    """
    raw = raw_folder(dataset, root)
    index = _with_corners(index_dataset(raw, strict=strict, taken=taken), settings, strict)
    folder = store_folder(dataset, root, settings)
    _log.info("%s: %d frames of %d objects in %s", dataset, len(index.frames), len(index.objects), raw)
    warn("left out", {skipped.name: skipped.reason for skipped in index.skipped})
    if index.not_taken:
        _log.warning(
            "%d frames are not taken, such as %s, for they are not in the evaluation set, %s; %s",
            len(index.not_taken), index.not_taken[0], EVALUATION, ALL_HINT,
        )  # fmt: skip
    _say_of_grey(index)
    official = None if trials == "objects" else trials_of(raw)
    if official is not None:
        _warn_of_trials(index, official)
    source = _source(raw, index) | ({} if taken == "evaluation" else {"frames": taken})
    return build_store(
        folder,
        _objects(index),
        settings,
        lambda headers: _index(dataset, source, settings, official, index, headers),
        workers=workers,
        scheduler=scheduler,
        strict=strict,
        progress=progress,
    )


def preview(dataset: str, root: Path, settings: ImageSettings, path: Path, *, taken: Taken = "evaluation") -> None:
    """Draws frames from the whole data set, raw and processed, into a PNG file; what cannot be read is left out.

    Raises:
        DataError: there is no data set.
        StorageError: the disk is full or refuses.
    """
    index = _with_corners(index_dataset(raw_folder(dataset, root), taken=taken), settings)
    groups = list(index.objects.values())
    chosen = [groups[k] for k in np.unique(np.linspace(0, len(groups) - 1, PREVIEW_FRAMES).astype(int))]
    draw([group[len(group) // 2] for group in chosen], path, settings.depth_encoding, corner=True)


def _objects(index: Index) -> dict[str, tuple[Frame, ...]]:
    return {f"{category}_{number}": frames for (category, number), frames in index.objects.items()}


def _with_corners(index: Index, settings: ImageSettings, strict: bool = False) -> Index:
    """Without the frames that lack the corner, where the encoding needs it.

    Raises:
        DataError: all lack it, or, with `strict`, one does.
    """
    lacking = [frame.id for frame in index.frames if frame.loc is None]
    if settings.depth_encoding != "normals" or not lacking:
        return index
    if strict or len(lacking) == len(index.frames):
        raise DataError(
            f"surface normals need a crop's position in the frame, but {lacking[0]}_loc.txt is missing "
            f"({len(lacking)} frames have none)",
            "use --depth-encoding jet, or get the archive with the loc files",
        )
    reason = "has no loc.txt, which surface normals need"
    return Index(
        tuple(frame for frame in index.frames if frame.loc is not None),
        tuple(sorted([*index.skipped, *(Skipped(name, reason) for name in lacking)])),
        index.not_taken,
    )


def _source(raw: Path, index: Index) -> dict[str, Any]:
    """Identifies the raw data; warns if the real data set is incomplete."""
    from pipeline.sample.render import settings_of  # not at the top, or every worker would load the renderer

    settings = settings_of(raw)
    if settings is not None:
        return {"rendered": settings}
    facts = washington.load_facts()
    differences = deviations(index, facts)
    if differences:
        _log.warning(
            "this is not the complete data set: %s; `mmssl data verify %s` lists all %d deviations",
            "; ".join(differences[-3:]),
            ARCHIVE,
            len(differences),
        )
    return {"manifest": ARCHIVE, "deviations": differences}


def _say_of_grey(index: Index) -> None:
    """Says what becomes of colour pictures that have 16 bits per channel, if there are some in a sample."""
    deep = 0
    sample = sample_of(len(index.frames), PREVIEW_FRAMES)
    for k in sample:
        with suppress(DataError):  # named when it is read
            deep += picture_facts(index.frames[k].rgb).deep
    if deep:
        _log.warning(
            "%d of %d colour pictures in a sample have 16 bits per channel, of which the upper 8 are used",
            deep, len(sample),
        )  # fmt: skip


def _warn_of_trials(index: Index, trials: washington.Trials) -> None:
    """Says now what `mmssl extract` would say after the images are made."""
    objects = index.objects.keys()
    if misfits := [(k, reason) for k, trial in enumerate(trials) if (reason := misfit(objects, trial)) is not None]:
        first, reason = misfits[0]
        _log.warning(
            "%d of %d trials do not fit these frames: trial %d %s; %s",
            len(misfits), len(trials), first + 1, reason, TRIALS_HINT,
        )  # fmt: skip


def _index(
    dataset: str,
    source: dict[str, Any],
    settings: ImageSettings,
    trials: washington.Trials | None,
    index: Index,
    headers: Headers,
) -> StoreIndex:
    known = _objects(index)
    order = [name for name in known if headers[name].ids]
    skipped = {skipped.name: skipped.reason for skipped in index.skipped}
    flawed: dict[str, str] = {}
    for name in known:
        skipped |= headers[name].skipped
        flawed |= headers[name].flawed
    if not order:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"not one frame can be read: {name}: {reason}", "get intact files, and try again")
    if trials is None:
        trials = object_trials(
            (category, number) for category, number in index.objects if f"{category}_{number}" in order
        )
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
