"""What a step learns from: labels, unlabelled rows, streams; and what an epoch's metrics say."""

import math
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.runtime.errors import Interrupted
from tests.support.steps import equal, take, weights
from tests.support.training import (
    CLASSES,
    CPU,
    MODELS,
    WITH_LABELS,
    make_data,
    make_settings,
    make_shard,
    make_step,
    relabelled_shards,
    run_stack,
    scores,
)
from trainer.data import propagation
from trainer.data.resident import Resident
from trainer.evaluation.evaluate import evaluate
from trainer.nn.batch_norm import ReplicaBatchNorm
from trainer.nn.layers import ReplicaLinear
from trainer.nn.rng import Noise
from trainer.training.step import Step


@pytest.mark.parametrize("model", MODELS)
def test_labels_of_unlabelled_rows_change_nothing(model: str, tmp_path: Path) -> None:
    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    shards = relabelled_shards(tmp_path)
    assert len({shard.digest for shard in shards}) == 3
    plain, shuffled, relabelled = (
        weights(take(make_step([make_settings(model, shard, labels="shard", **kinds)], shard), 6)) for shard in shards
    )
    assert equal(plain, shuffled)
    assert equal(plain, relabelled) == (model not in WITH_LABELS)  # those of labelled rows do matter


@pytest.mark.parametrize(("model", "label_estimator"), [("sshmvae-kl", "gumbel"), ("ssmvae", "exact")])
def test_the_bound_rises_and_so_does_accuracy(model: str, label_estimator: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings(model, shard, label_estimator=label_estimator, alpha=10)], shard)
    (before,) = evaluate(step.model, step.noise, step.data, iterations=1, samples=0)
    means = []
    for epoch in range(16):
        step.terms.totals.zero_()
        for number in range(5 * epoch, 5 * epoch + 5):
            step(number)
        means.append(step.terms.totals[:, 0] / 5)
    for name in ("J", "L", "U", "log q(y)"):
        row = step.terms.names.index(name)
        assert means[-1][row] > means[0][row] + 0.3
    (after,) = evaluate(step.model, step.noise, step.data, iterations=1, samples=0)
    assert scores(before)["x+w", "none"] <= 0.6
    assert scores(after)["x+w", "none"] >= 0.9
    assert after.elbo > before.elbo + 1


@pytest.mark.parametrize("model", WITH_LABELS)
def test_gumbel_and_exact_labels(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    ends = {}
    for label in ("gumbel", "exact"):
        step = make_step([make_settings(model, shard, label_estimator=label, **kinds)], shard)
        start = weights(step)
        ends[label] = weights(take(step, 4))
        assert bool(step.terms.finite.all())
        for name, parameter in step.model.named_parameters():
            assert not torch.equal(start[name], parameter), f"{name} was not trained"
    assert not equal(ends["gumbel"], ends["exact"])


@pytest.mark.parametrize("model", MODELS)
def test_all_labelled(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    step = make_step([make_settings(model, shard, labels="all", **kinds)], shard)
    assert step.batches.per_epoch == 5  # 40 rows in batches of 8
    take(step, 5)
    if model in WITH_LABELS:
        assert step.batches.index_u is None
        assert sorted(np.concatenate([step.batches.labelled[0].batch(n) for n in range(5)])) == list(range(40))
        assert not any(name.startswith("U") for name in step.terms.names)
        assert {"J", "L", "log q(y)"} <= set(step.terms.names)
    else:
        assert step.batches.index_l is None
    moved = [n.mean.abs().sum() > 0 for n in step.model.modules() if isinstance(n, ReplicaBatchNorm)]
    assert all(moved)  # here the running statistics follow the labelled pass: there is no other


@pytest.mark.parametrize("model", ["jmvae", "jmvae-kl"])
def test_a_model_without_labels_sees_every_row_once_an_epoch(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings(model, shard)], shard)
    assert step.batches.index_l is None
    assert step.batches.labelled == []
    seen = []
    for number in range(step.batches.per_epoch):
        step.batches.load(number)
        assert step.batches.index_u is not None
        seen += step.batches.index_u[0].tolist()
    assert sorted(seen) == list(range(40))


def test_running_statistics_follow_the_unlabelled_pass_alone(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("ssmvae", shard, seed=2)], shard)
    norms = [module for module in step.model.modules() if isinstance(module, ReplicaBatchNorm)]
    assert all(bool((n.mean == 0).all() and (n.variance == 1).all()) for n in norms)  # making a step leaves no trace
    branch = step.model.q_y.mlp.parts[0].layers  # the branch of x: D8BR
    linear, norm = branch[0], branch[1]
    assert isinstance(linear, ReplicaLinear)
    assert isinstance(norm, ReplicaBatchNorm)
    step.batches.load(0)
    assert step.batches.index_u is not None
    h = torch.einsum("rbf,rfo->rbo", step.data.x(step.batches.index_u)["x"], linear.weight)
    expected_mean, expected_variance = 0.1 * h.mean(1), 0.9 + 0.1 * h.var(1, correction=1)
    step(0)
    assert torch.allclose(norm.mean, expected_mean, rtol=1e-5, atol=1e-7)
    assert torch.allclose(norm.variance, expected_variance, rtol=1e-5)


def test_batches_are_gathered_from_the_streams(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("ssmvae", shard, seed=seed) for seed in (4, 9)]
    step = Step(stack, make_data(stack, shard), CPU)
    step.batches.load(11)
    assert step.batches.index_l is not None
    assert step.batches.index_u is not None
    for r in range(2):
        assert step.batches.index_l[r].tolist() == step.batches.labelled[r].batch(11).tolist()
        assert step.batches.index_u[r].tolist() == step.batches.unlabelled[r].batch(11).tolist()
        assert not set(step.batches.index_l[r].tolist()) & set(step.batches.index_u[r].tolist())
    assert step.batches.per_epoch == math.ceil(34 / 8)
    assert len(step.data.classes) == len(CLASSES)


def test_making_a_step_takes_no_noise(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("sshmvae-kl", shard, seed=5), make_settings("sshmvae-kl", shard, seed=6)], shard)
    fresh = Noise([5, 6])
    for replica in range(2):
        assert torch.equal(step.noise.state(replica), fresh.state(replica))


@pytest.mark.parametrize("kept", [False, True])
def test_a_stop_while_labels_are_propagated_ends_the_run_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("ssmvae", shard, propagation=1)
    monkeypatch.setattr(propagation, "_KEPT", propagation._Kept())  # another test may have kept these rows' graphs
    if kept:
        run_stack(tmp_path / "before", [settings], [shard])
    read = Resident.training_features

    def interrupted(data: Resident, replica: int) -> Iterator[Mapping[str, torch.Tensor]]:
        if not asked:
            asked.append(replica)
            signal.raise_signal(signal.SIGTERM)
        yield from read(data, replica)

    asked: list[int] = []
    monkeypatch.setattr(Resident, "training_features", interrupted)
    with pytest.raises(Interrupted, match="stopped by SIGTERM before the first step"):
        run_stack(tmp_path / "runs", [settings], [shard])
    (run,) = run_stack(tmp_path / "runs", [settings], [shard])
    assert run.done


def test_metrics_are_the_means_of_an_epochs_terms(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae-kl", shard, alpha=2.5, beta=0.5)
    (run,) = run_stack(tmp_path / "run", [settings], [shard])
    step = make_step([settings], shard)
    for row in run.metrics():
        before = step.terms.totals.clone()
        for number in range(5 * (int(row["epoch"]) - 1), 5 * int(row["epoch"])):
            step(number)
        means = dict(zip(step.terms.names, ((step.terms.totals - before)[:, 0] / 5).tolist(), strict=True))
        assert {name: float(row[name]) for name in means} == pytest.approx(means, rel=1e-5, abs=1e-5)
        assert means["J"] == pytest.approx(
            means["L"] + 2.5 * means["log q(y)"] + means["U"] - 0.5 * means["J_div"], rel=1e-5
        )
        inside = {symbol: sum(v for k, v in means.items() if k.startswith(f"{symbol}: ")) for symbol in "LU"}
        divergence = {s: sum(v for k, v in means.items() if k.startswith(f"{s}: KL to")) for s in "LU"}
        for symbol in "LU":
            assert inside[symbol] - divergence[symbol] == pytest.approx(means[symbol], rel=1e-5)
        assert means["J_div"] == pytest.approx(6 / 40 * divergence["L"] + 34 / 40 * divergence["U"], rel=1e-5)
        (evaluation,) = evaluate(step.model, step.noise, step.data, iterations=1, samples=0)
        assert {k: float(v) for k, v in row.items() if k.startswith("accuracy")} == pytest.approx(
            {f"accuracy {s.given}": s.accuracy for s in evaluation.scores}, abs=1e-6
        )
    assert len(run.metrics()) == 2
