"""Narrow networks are trained by one thread, unless somebody says otherwise; afterwards there are as many as before."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.training import CPU, NETWORKS, make_settings, make_shard
from trainer.jobs.plan import Job
from trainer.jobs.train import train_all
from trainer.settings.run_settings import Settings, build
from trainer.training.progress import Silent
from trainer.training.threads import threads

WIDE = {"q(y|X)": "(X-D512BR)-D64BR, DK"}


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def settings(**networks: str) -> Settings:
    values = {"model": "ssmvae", "data": "none", "labels": 3, "epochs": 1, "batch_size": 2, "learning_rate": 1e-3}
    return build({**values, "networks": NETWORKS["ssmvae"] | networks})


@pytest.mark.parametrize(
    ("networks", "device", "asked", "expected"),
    [
        ({}, CPU, None, 1),
        ({}, CPU, "2", 2),
        (WIDE, CPU, None, 2),
        ({}, torch.device("cuda"), None, 2),
    ],
)
def test_how_many(
    networks: dict[str, str], device: torch.device, asked: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with threads(settings(**networks), device):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2


def test_a_runs_provenance_says_how_many_it_took(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    job = Job(make_settings("ssmvae", shard), shard)
    (run,) = train_all([job], [tmp_path / "run"], CPU, Silent())
    assert run.provenance()["threads"] == 1
    assert torch.get_num_threads() == 2
