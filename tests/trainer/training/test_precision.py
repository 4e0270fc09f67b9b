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
from trainer.nn.notation import parse
from trainer.settings.run_settings import Settings, build
from trainer.settings.widths import is_wide
from trainer.training.precision import chosen_precision, multiplies_bfloat16, precision


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


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("units", [16, 512])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("asked", ["auto", "fp32", "tf32", "bf16"])
def test_auto_halves_the_bytes_where_that_is_faster(
    asked: str, device: str, units: int, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.training.precision.multiplies_bfloat16", lambda: able)
    networks = {name: str(parse(text).resized(units, 4)) for name, text in NETWORKS["m2"].items()}
    settings = build(
        {
            "model": "m2", "data": "none", "labels": 3, "epochs": 1, "batch_size": 2, "learning_rate": 1e-3,
            "precision": asked, "networks": networks,
        }
    )  # fmt: skip
    auto = {"cuda": "tf32", "cpu": "bf16" if able and units == 512 else "fp32"}[device]
    expected = {"auto": auto, "tf32": {"cuda": "tf32", "cpu": "fp32"}[device]}.get(asked, asked)  # a CPU has no TF32
    assert chosen_precision(settings, torch.device(device)) == expected
    narrow = dict(networks) | {"q(y|X)": "(x-D512BR)-D8BR, D3"}
    assert not is_wide(settings.model_copy(update={"networks": narrow}))
    assert not is_wide(settings.model_copy(update={"networks": {"q(y|X)": "x, D3"}}))


def test_older_versions_of_torch_may_not_say_what_the_processor_can(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(f"torch.cpu.{name}", raising=False)
    assert not multiplies_bfloat16()
