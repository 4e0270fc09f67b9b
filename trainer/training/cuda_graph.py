"""A training step captured as a CUDA graph: one launch in place of hundreds."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.nn.rng import Noise

_WARM_UPS = 3  # runs before the capture, on a side stream, as PyTorch asks for


def capture(
    update: Callable[[], None], state: Callable[[], list[Tensor]], optimizer: torch.optim.Optimizer, noise: Noise
) -> torch.cuda.CUDAGraph:
    """The step `update` as a graph. Leaves every state as it was.

    Args:
        state: gives every tensor that a step changes, the optimiser's last; these appear with the first step.
        optimizer: whose state starts from zero where the step was never taken before.
        noise: whose generators the graph advances.
    """
    kept = [tensor.clone() for tensor in state()]
    generators = [noise.state(r) for r in range(noise.replicas)]
    fresh = not optimizer.state
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            update()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for generator in noise.generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        update()
    after = state()
    with torch.no_grad():
        for tensor, value in zip(after, kept, strict=False):
            tensor.copy_(value)
        if fresh:
            for tensor in after[len(kept) :]:
                tensor.zero_()
    for r, generator_state in enumerate(generators):
        noise.set_state(r, generator_state)
    return graph
