"""Computes the features of every image: batches are read ahead in a thread, results are fetched one batch late."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.features.fine_tuning import Prepare, Stop, _endless, low_precision
from pipeline.images.resize import Bytes
from pipeline.runtime.errors import TrainingError
from pipeline.shards.schema import Features

Given = Bytes | Features  # images, or what lower layers give of them
_AHEAD = 4  # batches that are read before they are needed


def features(
    network: nn.Module,
    prepare: Prepare,
    blocks: Iterable[Given],
    batch: int,
    *,
    stop: Stop = _endless,
) -> Iterator[Features]:
    """Yields what a network gives for every image, in order: float32 `[n, D]`, `batch` rows at a time; the rest last.

    Images are read ahead in a thread, and a result is fetched only when the next batch is running, so that the device
    does not wait. Batches are cut from the stream, not from the blocks, so the size of the blocks changes nothing.

    Args:
        network: a trunk (`pipeline.features.backbones.trunk`).
        prepare: makes images what it expects.
        blocks: uint8 `[m, S, S, 3]`, any m; or what the layers below give of these, float32 `[m, D]`.

    Raises:
        TrainingError: a feature is not finite.
        DataError: raised by `blocks`.
    """
    device = next(network.parameters()).device
    network.eval()
    pending: deque[Tensor] = deque()
    with torch.inference_mode(), closing(_ahead(_batches(blocks, batch), device)) as batches:
        for pixels in batches:
            stop()
            pending.append(forward(network, prepare, pixels.to(device, non_blocking=True)))
            if len(pending) > 1:
                yield _fetch(pending.popleft())
        while pending:
            yield _fetch(pending.popleft())


def forward(network: nn.Module, prepare: Prepare, pixels: Tensor) -> Tensor:
    """One batch, uint8 `[n, S, S, 3]`, through a trunk: float32 `[n, D]`."""
    with low_precision(pixels.device):
        given: Tensor = network(prepare(pixels)).float()
    return given


def _fetch(values: Tensor) -> Features:
    features: Features = values.cpu().numpy()
    if not np.isfinite(features).all():
        raise TrainingError("a feature is not finite", "see whether the weights are sound; a smaller --lr often helps")
    return features


def _batches(blocks: Iterable[Given], size: int) -> Iterator[NDArray[Any]]:
    """Regroups the images, `size` at a time."""
    parts: list[NDArray[Any]] = []
    count = 0
    for block in blocks:
        while len(block):
            part, block = block[: size - count], block[size - count :]
            parts.append(part)
            count += len(part)
            if count == size:
                yield np.concatenate(parts)
                parts, count = [], 0
    if parts:
        yield np.concatenate(parts)


def _ahead(batches: Iterator[NDArray[Any]], device: torch.device) -> Generator[Tensor]:
    """Yields the batches as tensors, which a thread reads a few ahead."""
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
        except BaseException as error:  # raised where the batches are consumed
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
