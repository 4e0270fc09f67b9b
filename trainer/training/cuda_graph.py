"""Captures a training step as a CUDA graph: one launch instead of hundreds."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.nn.rng import Noise

_WARM_UPS = 3  # runs on a side stream before the capture, as PyTorch requires


def capture(
    update: Callable[[], None], state: Callable[[], list[Tensor]], optimizer: torch.optim.Optimizer, noise: Noise
) -> torch.cuda.CUDAGraph:
    """Captures the step `update` as a graph, and restores all state that capturing has changed.

    Args:
        state: returns every tensor that a step changes. The optimiser's come last; they exist only after a first step.
        optimizer: the optimiser; if it has no state yet, its state is zero after the capture.
        noise: the random streams; the graph advances their generators.
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
