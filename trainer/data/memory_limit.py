"""Turns a memory limit into a window: whether a shard is streamed, and how many of its rows are in memory at a time."""

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import ByteSize, TypeAdapter, ValidationError

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality, Shard
from trainer.data.selection import VALUE_BYTES, choose_labelled, choose_modalities, leaves_unlabelled
from trainer.settings.run_settings import Settings

_LABEL_BYTES = 8  # int64
# The memory limit in half windows: two windows, a quarter of one for the test set, an eighth for rows that are being
# read, which makes 2.375 windows, and some slack.
_HALF_WINDOWS = 5


def parse_size(text: object) -> int:
    """The number of bytes in `2GB`, `1.5GiB`, `500MB` or a whole number.

    Raises:
        UsageError: the text is not a size of at least one byte.
    """
    try:
        size = 0 if isinstance(text, bool) else int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise UsageError(f"the memory limit {text!r} is not a size", "for example --memory-limit 2GB, 500MB or 1.5GiB")
    return size


def choose_windows(limit: object, stack: Sequence[Settings], shards: Sequence[Shard], together: int) -> list[Settings]:
    """The settings with the largest window that a memory limit allows; None for a shard that fits as a whole.

    Args:
        limit: a size that `parse_size` reads.
        shards: one per replica.
        together: how many replicas are trained in one stack; their shards share the limit.

    Raises:
        UsageError: the limit is not a size, or too small for the labelled rows and windows of two batches.
    """
    replicas: dict[str, list[tuple[Settings, Shard]]] = {}  # by the digest of their shard
    for settings, shard in zip(stack, shards, strict=True):
        replicas.setdefault(shard.digest, []).append((settings, shard))
    share = parse_size(limit) // min(len(replicas), together)
    windows = {digest: _window(share, limit, same_shard) for digest, same_shard in replicas.items()}
    smallest = min((window for window in windows.values() if window), default=None)  # only equal windows can be stacked
    return [
        settings.model_copy(update={"window": windows[shard.digest] and smallest})
        for settings, shard in zip(stack, shards, strict=True)
    ]


def _window(share: int, limit: object, replicas: Sequence[tuple[Settings, Shard]]) -> int | None:
    """The window, in rows, of one shard and its replicas; None if the shard fits into its share of the limit, in bytes.

    Raises:
        UsageError: the share is too small.
    """
    settings, shard = replicas[0]
    row = _row_bytes(choose_modalities(shard, settings.modalities))
    if (shard.train.rows + shard.test.rows) * row <= share:
        return None
    labelled = [choose_labelled(*replica) for replica in replicas]
    resident_rows = 0 if not leaves_unlabelled(settings, shard) else len(np.unique(np.concatenate(labelled)))
    window = 2 * (share // row - resident_rows) // _HALF_WINDOWS
    if window < 2 * settings.batch_size:
        least = (resident_rows + _HALF_WINDOWS * settings.batch_size) * row * (parse_size(limit) // share) + row
        raise UsageError(
            f"a memory limit of {limit} is too small for {shard.path}: its {resident_rows} labelled rows and "
            f"windows of two batches of {settings.batch_size} take {least / 1e6:.2f} MB",
            f"give it more: --memory-limit {-(-least // 1000)}kB",
        )
    return window


def _row_bytes(modalities: Iterable[Modality]) -> int:
    """The bytes of a row: its label and its features."""
    return _LABEL_BYTES + VALUE_BYTES * sum(m.width for m in modalities)
