"""Reduced precision is for matrix products alone, and is put back."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.steps import take
from tests.support.training import (
    CPU,
    NETWORKS,
    V,
    W,
    X,
    make_settings,
    make_shard,
    make_step,
)
from trainer.nn.layers import ReplicaLinear
from trainer.settings.run_settings import Settings
from trainer.training.step import precision


def test_bfloat16_is_for_matrix_products_alone(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V))
    products: set[torch.dtype] = set()

    def watch(_: object, __: object, output: torch.Tensor) -> None:
        products.add(output.dtype)

    ends = {}
    for chosen in ("fp32", "bf16"):
        products.clear()
        step = make_step([make_settings("sshmvae-kl", shard, precision=chosen)], shard)
        for module in step.model.modules():
            if isinstance(module, ReplicaLinear):
                module.register_forward_hook(watch)
        densities: list[Any] = []
        model: Any = step.model
        model.bound = lambda *given, bound=model.bound, kept=densities: kept.append(bound(*given)) or kept[-1]
        take(step, 12)
        assert products == {torch.bfloat16 if chosen == "bf16" else torch.float32}
        assert len(densities) == 12  # labelled and unlabelled rows in one pass
        for density in densities:
            terms = [*density.log_p.values(), *density.log_q.values(), *density.divergence.values(), density.value]
            assert {term.dtype for term in terms} == {torch.float32}
        assert {p.dtype for p in step.model.parameters()} == {torch.float32}
        ends[chosen] = float(step.terms.totals[step.terms.names.index("J"), 0]) / 12
    assert ends["bf16"] != ends["fp32"]
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=0.05)


def test_precision_is_put_back() -> None:
    settings = Settings(
        model="m2", data="none", labels=3, epochs=1, batch_size=2, learning_rate=1e-3, networks=NETWORKS["m2"]
    )
    before = torch.get_float32_matmul_precision()
    with precision(settings, CPU):
        assert torch.get_float32_matmul_precision() == "highest"  # TF32 is CUDA's
    assert torch.get_float32_matmul_precision() == before
    with precision(settings, torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
