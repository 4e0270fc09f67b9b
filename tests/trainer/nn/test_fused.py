"""The fused kernels do what batch normalisation and ReLU do: on a GPU, or else in Triton's interpreter."""

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.runtime.errors import UsageError
from tests.support.training import make_settings, make_shard
from trainer.data.resident import load
from trainer.nn.batch_norm import BatchNormReLU, frozen_statistics, fuse, only_rows
from trainer.nn.segments import Segments, in_segments
from trainer.training.step import Step

R, B, F = 3, 70, 40  # more than one block of rows, and of features
GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="no Triton: its kernels are not compared with PyTorch's"),
    *([pytest.mark.gpu] if GPU else []),
]
DEVICE = torch.device("cuda" if GPU else "cpu")
CLOSE: dict[torch.dtype, dict[str, Any]] = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}


def pair(replicas: int) -> tuple[BatchNormReLU, BatchNormReLU]:
    """Equal layers, the second of them fused."""
    plain, fused = (BatchNormReLU(F, replicas).to(DEVICE) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (plain.scale, plain.shift, plain.mean, plain.variance):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        plain.shift.sub_(1)
    fused.load_state_dict(plain.state_dict())
    fuse(fused)
    return plain, fused


def results(norm: BatchNormReLU, x: Tensor) -> list[Tensor]:
    """What comes out, its gradients, and the running statistics afterwards."""
    x = x.clone().requires_grad_()
    out = norm(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    gradients = torch.autograd.grad((out.float() * weights).sum(), [x, norm.scale, norm.shift])
    return [out, *gradients, norm.mean, norm.variance]


def rows_like(replicas: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(replicas, B, F, generator=torch.Generator().manual_seed(2)) + 1).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("labelled", [0, 2, 65])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("replicas", [1, R])
def test_a_fused_layer_is_the_plain_pair(replicas: int, frozen: bool, labelled: int, dtype: torch.dtype) -> None:
    plain, fused = pair(replicas)
    x = rows_like(replicas, dtype)
    segments = Segments(torch.zeros(replicas, labelled, 4, device=DEVICE)) if labelled else None
    with in_segments(segments), frozen_statistics() if frozen else nullcontext():
        both = zip(results(fused, x), results(plain, x), strict=True)
    for ours, theirs in both:
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **CLOSE[dtype])
    assert torch.equal(fused.mean, pair(replicas)[0].mean) == frozen


def test_a_stack_of_one_comes_without_its_axis() -> None:
    plain, fused = pair(1)
    x = rows_like(1)[0]
    assert fused(x).shape == x.shape
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-4, atol=1e-4)


def test_rows_that_lie_apart_in_memory_are_read_where_they_are() -> None:
    plain, fused = pair(R)
    x = rows_like(B).expand(B, B, F)[:R].transpose(0, 1).contiguous().transpose(0, 1)
    assert not x.is_contiguous()
    for ours, theirs in zip(results(fused, x), results(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["evaluation", "some rows"])
def test_elsewhere_the_plain_pair_is_used(way: str) -> None:
    plain, fused = pair(R)
    x = rows_like(R)
    rows = x[..., 0] > 0 if way == "some rows" else None
    for norm in (plain, fused):
        norm.train(way != "evaluation")
    with only_rows(rows):
        assert torch.equal(fused(x), plain(x))


def test_what_is_not_a_number_stays_for_the_training_loop_to_find() -> None:
    _, fused = pair(R)
    x = rows_like(R)
    x[1, 5, 7] = torch.nan
    out = fused(x)
    assert out[1, :, 7].isnan().all()
    assert out[0].isfinite().all()


def test_a_fused_model_has_the_plain_ones_objective_and_gradient(tmp_path: Path) -> None:
    """In one pass over two segments, with the terms beyond the paper, in a stack."""
    shard = make_shard(tmp_path / "shard.h5")
    terms = {"partial_alpha": 1.0, "smoothness": 1.0, "agreement": 1.0}
    stack = [make_settings("sshmvae-kl", shard, seed=seed, precision="fp32", **terms) for seed in range(2)]
    data = load(stack, [shard] * 2, DEVICE)
    plain, fused = (Step(stack, data, DEVICE, eager=True) for _ in range(2))
    fuse(fused.model)
    gradients = []
    for step in (plain, fused):
        step.batches.load(0)
        step.objective().loss.backward()
        gradients.append({name: p.grad for name, p in step.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).norm() <= 1e-3 * gradient.norm() + 1e-5, name


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from trainer.nn import fused

KINDS = {"labelled": "i32", "batch": "i32", "features": "i32", "momentum": "fp32", "epsilon": "fp32"}
CONSTANTS = {"MOVES": True, "ROWS": 64, "FEATURES": 32}
for kernel in (fused._forward, fused._backward):
    for values in ("fp32", "bf16"):
        of_values = ("x", "y", "gradient", "of_x")
        signature = {name: KINDS.get(name, f"*{values}" if name in of_values else "*fp32") for name in kernel.arg_names}
        constants = {name: value for name, value in CONSTANTS.items() if name in signature}
        signature |= dict.fromkeys(constants, "constexpr")
        assert compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32)).asm["ptx"]
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_card(tmp_path: Path) -> None:
    """Down to the machine code of an H100, which needs Triton's own compiler and no GPU."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_it_is_refused_where_there_is_no_cuda_device(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("ssmvae", shard, fused=True)
    device = torch.device("cpu")
    with pytest.raises(UsageError, match="fused=true is for CUDA, and this run is on cpu"):
        Step([settings], load([settings], [shard], device), device)
