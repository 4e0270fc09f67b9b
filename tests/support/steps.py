"""Steps taken without a run, and the weights they leave."""

import torch

from trainer.training.step import Step


def take(step: Step, steps: int) -> Step:
    """Takes the first steps."""
    for number in range(steps):
        step(number)
    return step


def weights(step: Step) -> dict[str, torch.Tensor]:
    """A copy of all weights by name."""
    return {name: tensor.clone() for name, tensor in step.model.state_dict().items()}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Whether weights are the same to the bit."""
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)
