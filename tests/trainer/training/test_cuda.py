"""What only a GPU can show: a captured step is the plain one, and the GPU computes what the CPU does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.shards.shard import Shard
from tests.support.training import holey_shard, make_settings, make_shard
from trainer.data.resident import load
from trainer.training.precision import precision
from trainer.training.step import Step

BEYOND = {
    "onset": 0.4,
    "propagation": 1.0,
    "partial_smoothness": 1.0,
    "mean_alpha": 1.0,
    "partial_alpha": 1.0,
    "smoothness": 1.0,
    "agreement": 1.0,
    "averaging": 0.9,
    "schedule": "cosine",
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: captured and plain steps are not compared")
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("make", [make_shard, holey_shard])
@pytest.mark.parametrize(
    ("model", "beyond"),
    [
        ("sshmvae-kl", {}),
        ("sshmvae-kl", BEYOND),
        ("sshmvae-kl", BEYOND | {"pooling": "product", "joint_encoder": False, "prior": "labelled"}),
        ("sshmvae-kl", BEYOND | {"fused": True}),
        ("ssmvae", {}),
        ("jmvae", {}),
    ],
)
def test_a_captured_step_is_the_plain_step(
    model: str, beyond: dict[str, Any], make: Callable[[Path], Shard], replicas: int, tmp_path: Path
) -> None:
    shard = make(tmp_path / "shard.h5")
    device = torch.device("cuda")
    stack = [make_settings(model, shard, seed=seed, precision="fp32", **beyond) for seed in range(replicas)]
    data = load(stack, [shard] * replicas, device)
    plain, captured = Step(stack, data, device, eager=True), Step(stack, data, device)
    with precision(stack[0], device):
        for number in range(8):
            plain(number)
            captured(number)
    assert torch.allclose(plain.terms.totals, captured.terms.totals, rtol=1e-4, atol=1e-4)
    assert bool(captured.terms.finite.all())
    state = captured.model.state_dict()
    for name, tensor in plain.model.state_dict().items():
        assert torch.allclose(tensor, state[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the GPU is not compared with the CPU")
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("model", ["sshmvae-kl", "sshmvae", "ssmvae", "sdgm"])
def test_the_gpu_computes_what_the_cpu_does(model: str, fused: bool, replicas: int, tmp_path: Path) -> None:
    """What no noise enters: the gradient of the classifier at the latents' means, with the batch's statistics."""
    shard = make_shard(tmp_path / "shard.h5")
    gradients = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        values = {"precision": "fp32", "fused": fused and device.type == "cuda"}
        stack = [make_settings(model, shard, seed=seed, **values) for seed in range(replicas)]
        data = load(stack, [shard] * replicas, device)
        step = Step(stack, data, device, eager=True)
        step.batches.load(0)
        assert step.batches.index_l is not None
        with precision(stack[0], device):
            log_q = step.model.classify(data.x(step.batches.index_l))
            (data.y(step.batches.index_l) * log_q).sum().backward()
        gradients.append({name: p.grad.cpu() for name, p in step.model.named_parameters() if p.grad is not None})
    on_cpu, on_gpu = gradients
    assert on_cpu.keys() == on_gpu.keys()
    for name, gradient in on_cpu.items():
        assert (gradient - on_gpu[name]).norm() <= 1e-3 * gradient.norm() + 1e-5, name
