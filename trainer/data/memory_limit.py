"""From a limit of memory to a window: whether a shard is streamed, and how many of its rows are in memory at a time."""

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import ByteSize, TypeAdapter, ValidationError

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality, Shard
from trainer.data.selection import choose_labelled, choose_modalities
from trainer.settings.run_settings import Settings


def parse_size(text: object) -> int:
    """Bytes in `2GB`, `1.5GiB`, `500MB` or a whole number.

    Raises:
        UsageError: it is no such size, or none at all.
    """
    try:
        size = 0 if isinstance(text, bool) else int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise UsageError(f"a memory limit of {text!r} is no size", "--memory-limit 2GB, 500MB, 1.5GiB")
    return size


def choose_windows(limit: object, stack: Sequence[Settings], shards: Sequence[Shard], together: int) -> list[Settings]:
    """The settings with the window that a memory limit leaves room for; None where the whole shard fits.

    Args:
        limit: as `parse_size` reads it.
        shards: one a replica.
        together: how many replicas are trained in one pass; their shards share the limit.

    Raises:
        UsageError: the limit is no size, or too small for the labelled rows and two batches a window.
    """
    jobs: dict[str, list[tuple[Settings, Shard]]] = {}
    for settings, shard in zip(stack, shards, strict=True):
        jobs.setdefault(shard.digest, []).append((settings, shard))
    share = parse_size(limit) // min(len(jobs), together)
    windows = {digest: _window(share, limit, own) for digest, own in jobs.items()}
    smallest = min((window for window in windows.values() if window), default=None)  # equal ones can be stacked
    return [
        settings.model_copy(update={"window": windows[shard.digest] and smallest})
        for settings, shard in zip(stack, shards, strict=True)
    ]


def _window(share: int, limit: object, jobs: Sequence[tuple[Settings, Shard]]) -> int | None:
    settings, shard = jobs[0]
    row = _row_bytes(choose_modalities(shard, settings.modalities))
    if (shard.train.rows + shard.test.rows) * row <= share:
        return None
    labelled = [choose_labelled(*job) for job in jobs]
    streams_labelled = settings.learns_labels and len(labelled[0]) == shard.train.rows
    resident_rows = 0 if streams_labelled else len(np.unique(np.concatenate(labelled)))
    # Two windows, a quarter of one for the test set, an eighth for what is on its way: 2.4 windows, and some air.
    window = 2 * (share // row - resident_rows) // 5
    if window < 2 * settings.batch_size:
        least = (resident_rows + 5 * settings.batch_size) * row * (parse_size(limit) // share) + row
        raise UsageError(
            f"a memory limit of {limit} is too small for {shard.path}: its {resident_rows} labelled rows, and windows "
            f"of two batches of {settings.batch_size}, take {least / 1e6:.2f} MB",
            f"--memory-limit {-(-least // 1000)}kB, or more",
        )
    return window


def _row_bytes(modalities: Iterable[Modality]) -> int:
    return 8 + 4 * sum(m.width for m in modalities)  # the label, too
