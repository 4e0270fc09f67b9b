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


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are the same to the bit."""
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)
