"""Whole runs of the co-trained systems: predictions, stopping and going on, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.runtime.tensor_files import TensorFile, read_tensor_file, write_tensor_file
from pipeline.shards.shard import Shard
from tests.support.training import (
    CO_TRAINED,
    CPU,
    ROUNDS,
    StopAfter,
    V,
    W,
    X,
    clusters,
    flipped,
    make_settings,
    make_shard,
    outcome,
    relabelled_shards,
    run_stack,
    scores,
    turns,
)  # fmt: skip
from trainer.inference.loading import load_run
from trainer.jobs.plan import plan
from trainer.jobs.train import evaluate_run
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Run

STOPS = [2, 3, 5, 7]  # of seven: two rounds of two views, the two final fits, the fusion


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", CO_TRAINED)
def test_from_settings_to_a_result_for_every_subset(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V))
    (run,) = run_stack(tmp_path, [make_settings(model, shard, epochs=3)], [shard])
    accuracies = scores(run.result())
    missing = ["x", "w", "v", "x+w", "x+v", "w+v"]
    assert list(accuracies) == [(given, "views") for given in missing] + [("x+w+v", "none")]
    assert accuracies["x+w+v", "none"] > 0.9
    assert run.result().elbo is None
    assert json.loads((run.folder / "result.json").read_text())["elbo"] is None
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [int(row["taught x"]) for row in rows] == sorted(int(row["taught x"]) for row in rows)
    assert int(rows[0]["taught v"]) == 0 < int(rows[1]["taught v"]) <= 2 * 2 * 3  # two teachers, two a class
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "labelled.txt", "metrics.csv", "provenance.json", "result.json", "settings.json", "weights.safetensors",
    ]  # fmt: skip
    assert evaluate_run(run, CPU) == run.result()


@pytest.mark.parametrize("model", CO_TRAINED)
def test_with_every_row_labelled_there_is_nothing_to_teach(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path, [make_settings(model, shard, labels="all", epochs=4)], [shard])
    assert [row["taught x"] for row in run.metrics()] == ["0"] * 4
    assert len({row["accuracy x"] for row in run.metrics()}) == 1


@pytest.mark.parametrize("model", CO_TRAINED)
def test_labels_of_unlabelled_rows_change_nothing(model: str, tmp_path: Path) -> None:
    def trained(shard: Shard) -> bytes:
        (run,) = run_stack(tmp_path / shard.path.stem, [make_settings(model, shard, labels="shard")], [shard])
        return (run.folder / "weights.safetensors").read_bytes()

    plain, unlabelled, labelled = map(trained, relabelled_shards(tmp_path, spread=0.4))
    assert unlabelled == plain
    assert labelled != plain


@pytest.mark.parametrize("model", CO_TRAINED)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", train=clusters("train", turns(40), (X, W), spread=0.4))
    settings = make_settings(model, shard, epochs=2, cotraining=ROUNDS | {"pool": 20})
    (whole,) = run_stack(tmp_path / "whole", [settings], [shard])
    for stop in STOPS[:-1]:
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(Interrupted, match=rf"stopped by SIGTERM after {(stop - 1) // 2} of 2 rounds") as caught:
            run_stack(folder, [settings], [shard], StopAfter(stop))
        assert caught.value.exit_code == 75
        (run,) = run_stack(folder, [settings], [shard])
        assert outcome(run) == outcome(whole)
    (run,) = run_stack(tmp_path / "late", [settings], [shard], StopAfter(STOPS[-1]))
    assert outcome(run) == outcome(whole)


def stopped(folder: Path, shard: Shard) -> tuple[Settings, Run]:
    settings = make_settings("ct-svm", shard)
    with pytest.raises(Interrupted):
        run_stack(folder, [settings], [shard], StopAfter(4))
    return settings, Run.open(folder / "0")


def test_a_damaged_checkpoint_is_not_gone_on_with(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings, run = stopped(tmp_path, shard)
    path = run.folder / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        run_stack(tmp_path, [settings], [shard])
    path.unlink()
    (run,) = run_stack(tmp_path, [settings], [shard])
    assert run.done


def test_metrics_that_were_lost(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings, run = stopped(tmp_path, shard)
    (run.folder / "metrics.csv").unlink()
    with pytest.raises(DataError, match="lost the metrics of some rounds"):
        run_stack(tmp_path, [settings], [shard])


@pytest.mark.parametrize("model", CO_TRAINED)
def test_weights_of_other_settings(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path, [make_settings(model, shard, epochs=1)], [shard])
    path = run.folder / "weights.safetensors"
    state = read_tensor_file(path)
    for tensors in (
        {name: tensor for name, tensor in state.tensors.items() if name != min(state.tensors)},
        {name: tensor[:1] for name, tensor in state.tensors.items()},
    ):
        write_tensor_file(path, TensorFile(tensors, {}))
        with pytest.raises(DataError, match="do not fit its settings"):
            evaluate_run(run, CPU)


def test_every_view_has_weights_of_its_own_and_every_seed_another(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, V))
    same = "x-D4BR, DK"
    stack = [
        make_settings("cotraining", shard, seed=seed, epochs=1, networks={"q(y|x)": same, "q(y|X)": "(X), DK"})
        for seed in (0, 1, 0)
    ]
    runs = run_stack(tmp_path, stack, [shard] * 3)
    first, second, again = (run.read_weights() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    key = "heads.0.weight"
    assert not torch.equal(first[f"view x: {key}"], first[f"view v: {key}"])
    assert not torch.equal(first[f"view x: {key}"], second[f"view x: {key}"])


# --- unlabelled examples help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", CO_TRAINED)
def test_what_the_views_teach_one_another_makes_them_better(model: str, tmp_path: Path) -> None:
    """Than their own supervised start, with two labels a class; each of three seeds, and by far in the mean."""
    shard = flipped(tmp_path / "shard.h5")
    networks = {"q(y|x)": "x-D24BR, DK", "q(y|X)": "(X)-D24BR, DK"} if model == "cotraining" else {}
    rounds = {"k_best": 10, "passes": 1, "least_steps": 50, "candidates": 2}
    changes = {"labels": 10, "epochs": 5, "labelled_batch_size": 20, "networks": networks, "cotraining": rounds}
    runs = run_stack(tmp_path, [make_settings(model, shard, seed=seed, **changes) for seed in range(3)], [shard] * 3)
    for given in ("x", "w"):
        start = np.array([float(run.metrics()[0][f"accuracy {given}"]) for run in runs])
        end = np.array([scores(run.result())[given, "views"] for run in runs])
        assert (end > start).all()
        assert end.mean() > start.mean() + 0.08


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", CO_TRAINED)
def test_one_modality_has_nobody_to_teach_it(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    with pytest.raises(UsageError, match=f"{model} needs two modalities or more.*there is only w"):
        run_stack(tmp_path / "runs", [make_settings(model, shard, modalities=("w",))], [shard])
    assert not list((tmp_path / "runs").rglob("*.*"))


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("ct-svm", {"learning_rate": 0.1}, "ct-svm has no setting 'learning_rate'"),
        ("ct-svm", {"networks": {}}, "ct-svm has no setting 'networks'"),
        ("cotraining", {"temperature": 1}, "cotraining has no setting 'temperature'"),
        ("cotraining", {"cotraining": {"cost": 1}}, "cotraining has no setting 'cotraining.cost'"),
        ("ct-svm", {"cotraining": {"passes": 1}}, "ct-svm has no setting 'cotraining.passes'"),
    ],
)
def test_settings_that_would_change_nothing(
    model: str, values: dict[str, object], message: str, tmp_path: Path
) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    with pytest.raises(UsageError, match=message):
        plan(model, [shard], values=values)
    if "cotraining" not in values:  # a model that takes every setting has nothing against these
        assert plan("ssmvae", [shard], values=values)


def test_what_is_given_replaces_the_presets_rounds_one_by_one(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (job,) = plan("ct-svm", [shard], preset="digits", values={"cotraining": {"pool": 7}, "epochs": 3})
    assert job.settings.cotraining is not None
    assert (job.settings.cotraining.pool, job.settings.cotraining.k_best, job.settings.epochs) == (7, 5, 3)
    assert f"-3-rounds-seed-0-{job.settings.fingerprint()[:8]}" in job.settings.name()
    with pytest.raises(UsageError, match="ct-svm has no alpha"):
        plan("ct-svm", [shard], alphas=(1.0,))
    with pytest.raises(UsageError, match="ct-svm has no beta"):
        plan("ct-svm", [shard], betas=(1.0,))


def test_they_generate_nothing(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path, [make_settings("ct-svm", shard, epochs=1)], [shard])
    with pytest.raises(UsageError, match="generates nothing"):
        _ = load_run(run).generative
