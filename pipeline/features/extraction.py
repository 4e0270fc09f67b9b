"""fc1 of every image: batches read ahead in a thread, results fetched one batch late."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from queue import Full, Queue
from threading import Event, Thread

import numpy as np
import torch
from torch import Tensor
from torchvision.models import VGG  # type: ignore[import-untyped]

from pipeline.features.fine_tuning import Stop, _endless, _low_precision
from pipeline.features.vgg import normalise
from pipeline.images.resize import Bytes
from pipeline.runtime.errors import TrainingError
from pipeline.shards.schema import Features

_AHEAD = 4  # batches read before they are needed


def fc1(network: VGG, blocks: Iterable[Bytes], batch: int, *, stop: Stop = _endless) -> Iterator[Features]:
    """fc1 after ReLU of every image, in order: float32 `[n, 4096]`, `batch` rows at a time but for the last.

    Images are read ahead in a thread, and a result is fetched only when the next batch is under way, so that the
    device does not wait. Batches are cut from the stream, not from the blocks: how those are cut changes nothing.

    Args:
        blocks: uint8 `[m, S, S, 3]`, any m.

    Raises:
        TrainingError: a feature is not finite.
        DataError: what `blocks` raises.
    """
    device = next(network.parameters()).device
    head = network.classifier[:2]
    network.eval()
    pending: deque[Tensor] = deque()
    with torch.inference_mode(), closing(_ahead(_batches(blocks, batch), device)) as batches:
        for pixels in batches:
            stop()
            with _low_precision(device):
                grid = network.avgpool(network.features(normalise(pixels.to(device, non_blocking=True))))
                pending.append(head(torch.flatten(grid, 1)).float())
            if len(pending) > 1:
                yield _fetch(pending.popleft())
        while pending:
            yield _fetch(pending.popleft())


def _fetch(values: Tensor) -> Features:
    found: Features = values.cpu().numpy()
    if not np.isfinite(found).all():
        raise TrainingError("a feature is not finite", "see whether the weights are sound; a smaller --lr often helps")
    return found


def _batches(blocks: Iterable[Bytes], size: int) -> Iterator[Bytes]:
    """The same images cut anew, `size` at a time."""
    kept: list[Bytes] = []
    have = 0
    for block in blocks:
        while len(block):
            part, block = block[: size - have], block[size - have :]
            kept.append(part)
            have += len(part)
            if have == size:
                yield np.concatenate(kept)
                kept, have = [], 0
    if kept:
        yield np.concatenate(kept)


def _ahead(batches: Iterator[Bytes], device: torch.device) -> Generator[Tensor]:
    """The batches as tensors, read in a thread, a few ahead."""
    queue: Queue[Tensor | BaseException | None] = Queue(_AHEAD)
    over = Event()

    def put(item: Tensor | BaseException | None) -> None:
        while not over.is_set():
            try:
                queue.put(item, timeout=0.1)
            except Full:
                continue
            return

    def read() -> None:
        try:
            for batch in batches:
                tensor = torch.from_numpy(batch)
                put(tensor.pin_memory() if device.type == "cuda" else tensor)
                if over.is_set():
                    return
            put(None)
        except BaseException as error:  # it is raised where the batches are used
            put(error)

    thread = Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
        thread.join()
