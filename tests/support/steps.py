"""Steps taken without a run, and the weights they leave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.training import make_settings, make_shard, make_step
from trainer.training.step import Step


def take(step: Step, steps: int) -> Step:
    """Takes the first steps."""
    for number in range(steps):
        step(number)
    return step


def weights(step: Step) -> dict[str, Tensor]:
    """A copy of all weights by name."""
    return {name: tensor.clone() for name, tensor in step.model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are the same to the bit."""
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def ready(tmp_path: Path, model: str = "sshmvae-kl", **changes: Any) -> tuple[Step, Mapping[str, Tensor], Tensor]:
    """A step, and its first labelled batch."""
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings(model, shard, **changes)], shard)
    step.batches.load(0)
    assert step.batches.index_l is not None
    return step, step.data.x(step.batches.index_l), step.data.y(step.batches.index_l)
