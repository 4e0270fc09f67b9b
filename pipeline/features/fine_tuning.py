"""Fine-tuning the network that features are taken from, on a few labelled images."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline.features.backbones import for_training
from pipeline.features.noise import generators, seed_of
from pipeline.features.vgg import normalise
from pipeline.images.resize import Bytes
from pipeline.runtime.errors import DataError, Interrupted, TrainingError
from pipeline.runtime.tensor_files import TensorFile, read_tensor_file, write_tensor_file
from pipeline.shards.schema import Features

_log = logging.getLogger(__name__)
_CHECKPOINT_SECONDS = 300.0  # between checkpoints, which take 1.6 GB each
_WORTH_SECONDS = 30.0  # of work that is worth a checkpoint when fine-tuning ends and extraction begins
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam's state


Stop = Callable[[], None]  # raises if the work should stop
Report = Callable[[int, int, str], None]  # steps done, steps in all, what they are
Prepare = Callable[[Tensor], Tensor]  # what is given of images, to what the network expects


def _silent(done: int, total: int, what: str) -> None:
    pass


def _endless() -> None:
    pass


class FeatureSettings(BaseModel):
    """The settings that determine the features, given the images, a split and the weights.

    Attributes:
        labelled: the share of training images that keep their label (the paper: 5 %).
        seed: for the choice of labelled images and everything random in fine-tuning.
        epochs: of fine-tuning (the paper: 200); 0 uses the weights as they are.
        learning_rate: Adam's (the paper: 1e-5).
        batch_size: for fine-tuning; the paper does not give it.
        extract_batch: images per step when features are computed; changes nothing but rounding.
        tune: the whole network (the paper's), or VGG's fully connected layers alone: then what the layers below give is
            computed once for all splits, and fine-tuning takes a small part of the time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labelled: float = Field(default=0.05, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=200, ge=0)
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=32, ge=1)
    extract_batch: int = Field(default=64, ge=1)
    tune: Literal["all", "fc1"] = "all"

    def identity(self, *without: str) -> dict[str, Any]:
        """What a recipe says of them. The paper's way to tune is not named, as before there was another."""
        return self.model_dump(exclude={*without, *(("tune",) if self.tune == "all" else ())})


def low_precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 on a GPU, full precision on a CPU."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")


def fine_tune(
    network: nn.Module,
    images: Bytes | Features,
    labels: NDArray[np.int64],
    settings: FeatureSettings,
    purpose: tuple[int | None, str],
    checkpoint: Path,
    recipe: Mapping[str, Any],
    *,
    prepare: Prepare = normalise,
    stop: Stop = _endless,
    report: Report = _silent,
) -> None:
    """Fine-tunes a network, or its upper layers, on labelled images, starting from the checkpoint if there is one.

    Adam minimises the cross-entropy, in an order redrawn every epoch, without augmentation. A checkpoint is written
    every few minutes and when the work is stopped; on a CPU the result is bit for bit the same however often that was.

    Args:
        images: uint8 `[n, S, S, 3]`, or what the layers below give of them, float32 `[n, D]`.
        labels: `[n]`, class indices.
        purpose: split (None if there are none) and modality; together with the seed they determine every draw.
        checkpoint: the file; the caller removes it when it is no longer needed.
        recipe: identifies the fine-tuning; a checkpoint with another recipe is an error.
        prepare: makes images what the network expects.
        stop: called between steps; raises Interrupted if the work should stop.

    Raises:
        DataError: the checkpoint belongs to other settings.
        TrainingError: the loss is not finite.
        StorageError: the checkpoint cannot be written.
        Interrupted: raised by `stop`, once the checkpoint is written.
    """
    device = next(network.parameters()).device
    count, batch = len(images), settings.batch_size
    steps = -(-count // batch)  # per epoch; the last batch may be smaller
    total = steps * settings.epochs
    adam = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
    done = saved = _restore(network, adam, checkpoint, recipe) if total else 0
    saved_at = time.monotonic()
    pixels, target = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    noise = generators(network)
    for_training(network)
    while done < total:
        epoch, first = divmod(done, steps)
        rng = np.random.default_rng(seed_of("order", settings.seed, *purpose, epoch))
        order = torch.from_numpy(rng.permutation(count)).to(device)
        losses = torch.zeros((), device=device)
        for step in range(first, steps):
            try:
                stop()
            except Interrupted:
                if done > saved:
                    _save(network, adam, checkpoint, recipe, done)
                raise
            rows = order[step * batch : (step + 1) * batch]
            for generator in noise:
                generator.manual_seed(seed_of("dropout", settings.seed, *purpose, done))
            with low_precision(device):
                logits = network(prepare(pixels[rows]))
            loss = functional.cross_entropy(logits.float(), target[rows])
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            losses += loss.detach()
            done += 1
            report(done, total, "fine-tuning")
            if time.monotonic() - saved_at > _CHECKPOINT_SECONDS:
                _save(network, adam, checkpoint, recipe, done)
                saved, saved_at = done, time.monotonic()
        mean = losses.item() / (steps - first)
        if not np.isfinite(mean):
            split = "" if purpose[0] is None else f"split {purpose[0]}, "
            raise TrainingError(
                f"fine-tuning on {split}{purpose[1]} stopped: the loss of epoch {epoch + 1} is {mean}",
                "a smaller --lr often helps",
            )
        _log.debug("epoch %d/%d: loss %.4f", epoch + 1, settings.epochs, mean)
    if done > saved and time.monotonic() - saved_at > _WORTH_SECONDS:
        _save(network, None, checkpoint, recipe, done)
    network.zero_grad(set_to_none=True)  # frees half a gigabyte that extraction does not need


def _save(network: nn.Module, adam: torch.optim.Adam | None, path: Path, recipe: Mapping[str, Any], done: int) -> None:
    """Writes a checkpoint, without Adam's state if `adam` is None because it will not be needed again."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        tensors[f"model.{name}"] = parameter
        if adam is not None:
            tensors |= {f"{moment}.{name}": adam.state[parameter][moment] for moment in _MOMENTS}
    write_tensor_file(path, TensorFile(tensors, {"recipe": dict(recipe), "steps": done}))


def _restore(network: nn.Module, adam: torch.optim.Adam, path: Path, recipe: Mapping[str, Any]) -> int:
    """Restores a checkpoint if there is one; returns the number of steps done."""
    if not path.exists():
        return 0
    try:
        state = read_tensor_file(path)
    except DataError as error:
        _log.warning("%s; fine-tuning starts again", error.message)
        return 0
    if state.values["recipe"] != dict(recipe):
        raise DataError(
            f"{path} belongs to other settings than those asked for", "delete it, or choose another name with --name"
        )
    steps = int(state.values["steps"])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(state.tensors[f"model.{name}"])
            moments = {m: state.tensors[f"{m}.{name}"] for m in _MOMENTS if f"{m}.{name}" in state.tensors}
            if moments:
                # Adam keeps the step as a float32 tensor, on the parameter's device if fused.
                adam.state[parameter] = {"step": torch.tensor(float(steps), device=parameter.device)} | {
                    moment: torch.empty_like(parameter).copy_(values) for moment, values in moments.items()
                }
    _log.info("fine-tuning goes on after %d steps", steps)
    return steps
