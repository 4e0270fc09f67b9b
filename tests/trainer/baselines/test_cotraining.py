"""The co-trained systems: what a round exchanges, predictions by hand, stopping and going on, what is refused."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

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
    make_data,
    make_settings,
    make_shard,
    outcome,
    run_stack,
    scores,
    turns,
)  # fmt: skip
from trainer.baselines.cotrained_svm import SupportVectorMachines, _in_own_span
from trainer.baselines.cotraining import CoTrained, LogQ, PseudoLabels, TrainingSet, exchange, merge
from trainer.data.selection import Rows
from trainer.inference.loading import load_run
from trainer.jobs.plan import plan
from trainer.jobs.train import evaluate_run
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Run

STOPS = [2, 3, 5, 7]  # of seven: two rounds of two views, the two final fits, the fusion


# --- a round, by hand ------------------------------------------------------------------------------------------------


@dataclass
class Says:
    """A view whose probabilities, by row, are given."""

    probabilities: Mapping[int, tuple[float, ...]]

    def log_q(self, rows: Rows) -> LogQ:
        return np.log(np.array([self.probabilities[int(row)] for row in rows], np.float32))


class TheSurest:
    """A system as far as an exchange needs one."""

    def choose(self, _view: Says, rows: Rows, count: int) -> Rows:
        return rows[:count]


def taught(**rows: tuple[float, int]) -> PseudoLabels:
    """`r5=(0.9, 1)`: row 5 was called class 1, by a teacher 0.9 sure."""
    return PseudoLabels(
        np.array([int(name[1:]) for name in rows], np.int64),
        np.array([label for _, label in rows.values()], np.int64),
        np.array([sure for sure, _ in rows.values()]),
    )


def exchanged(
    views: dict[str, Says], has: dict[str, PseudoLabels] | None = None, rows: int = 4, **changes: int
) -> dict[str, dict[int, tuple[float, int]]]:
    """By pupil, each row that it is newly taught: how sure its teacher is, and of which class."""
    settings = Settings.model_validate(
        {"model": "ct-svm", "data": "", "labels": 2, "epochs": 1, "batch_size": 2, "learning_rate": 1, "networks": {}}
        | {"cotraining": {"k_best": 1} | changes}
    )
    nothing = {name: PseudoLabels.nothing() for name in views}
    new = exchange(TheSurest(), views, np.arange(rows), nothing | (has or {}), settings, 0)  # type: ignore[arg-type]
    return {
        pupil: dict(
            zip(own.rows.tolist(), zip(own.confidence.round(4).tolist(), own.labels.tolist(), strict=True), strict=True)
        )
        for pupil, own in new.items()
    }


A = Says({0: (0.9, 0.1), 1: (0.6, 0.4), 2: (0.2, 0.8), 3: (0.3, 0.7)})
B = Says({0: (0.1, 0.9), 1: (0.55, 0.45), 2: (0.4, 0.6), 3: (0.45, 0.55)})


def test_each_view_teaches_the_other_what_it_is_surest_of_in_each_class() -> None:
    assert exchanged({"a": A, "b": B}) == {"a": {0: (0.9, 1), 1: (0.55, 0)}, "b": {0: (0.9, 0), 2: (0.8, 1)}}
    assert exchanged({"a": A, "b": B}, k_best=9)["b"] == {0: (0.9, 0), 1: (0.6, 0), 2: (0.8, 1), 3: (0.7, 1)}


def test_what_a_view_was_taught_it_neither_teaches_nor_learns_again() -> None:
    has = {"a": taught(r0=(0.99, 0), r2=(0.7, 1))}
    assert exchanged({"a": A, "b": B}, has) == {"a": {1: (0.55, 0), 3: (0.55, 1)}, "b": {1: (0.6, 0), 3: (0.7, 1)}}
    every = {"a": taught(r0=(0.5, 0), r1=(0.5, 0), r2=(0.5, 0), r3=(0.5, 0))}
    assert exchanged({"a": A, "b": B}, every) == {"a": {}, "b": {}}
    assert exchanged({"a": A, "b": B}, rows=0) == {"a": {}, "b": {}}


def test_of_three_views_the_surest_teacher_is_believed() -> None:
    c = Says({0: (0.98, 0.02), 1: (0.5, 0.5), 2: (0.3, 0.7), 3: (0.4, 0.6)})
    found = exchanged({"a": A, "b": B, "c": c})
    assert found["a"] == {0: (0.98, 0), 1: (0.55, 0), 2: (0.7, 1)}  # b calls row 0 class 1, and is 0.9 sure
    assert found["b"] == {0: (0.98, 0), 2: (0.8, 1)}
    assert found["c"] == {0: (0.9, 0), 1: (0.55, 0), 2: (0.8, 1)}  # a and b are equally sure of row 0: the first
    # What a and b were both taught, c alone still has to learn, and nobody who knows it by himself is left but c.
    both = taught(r0=(0.9, 0))
    assert all(0 not in own for own in exchanged({"a": A, "b": B, "c": c}, {"a": both, "b": both}).values())


def test_a_pool_is_drawn_anew_each_round_from_what_is_left() -> None:
    rows = 60
    sure = Says(dict.fromkeys(range(rows), (0.9, 0.1)))
    found = exchanged({"a": sure, "b": sure}, rows=rows, pool=10, k_best=60)
    assert len(found["a"]) == len(found["b"]) == 10
    assert found["a"].keys() != set(range(10))
    left = {"a": taught(**{f"r{row}": (0.9, 0) for row in range(50)})}  # type: ignore[arg-type]
    assert exchanged({"a": sure, "b": sure}, left, rows, pool=10, k_best=60)["a"].keys() == set(range(50, 60))


def test_merging_keeps_the_surest_and_the_order_of_rows() -> None:
    found = merge([taught(r7=(0.5, 0), r2=(0.9, 1)), taught(r7=(0.6, 1), r2=(0.9, 0))])
    assert (found.rows.tolist(), found.labels.tolist(), found.confidence.tolist()) == ([2, 7], [1, 1], [0.9, 0.6])


def test_modalities_given_together_are_the_product_of_their_views() -> None:
    trained = CoTrained({"a": A, "b": B}, None)
    joint = np.exp(trained.log_q(("a", "b"), np.array([0, 2])))
    expected = np.array([[0.9 * 0.1, 0.1 * 0.9], [0.2 * 0.4, 0.8 * 0.6]])
    assert joint == pytest.approx(expected / expected.sum(1, keepdims=True), rel=1e-5)
    assert np.exp(trained.log_q(("b",), np.array([2]))) == pytest.approx(np.array([[0.4, 0.6]]))
    fused = CoTrained({"a": A, "b": A}, B)
    assert np.array_equal(fused.log_q(("a", "b"), np.arange(4)), B.log_q(np.arange(4)))


# --- support vector machines -----------------------------------------------------------------------------------------


def test_machines_of_more_features_than_examples_are_those_of_the_features() -> None:
    """They are fitted in the space of the examples; the library, on the features themselves, is the judge."""
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(12, 40)), np.arange(12) % 3
    own, back = _in_own_span(x)
    assert own.shape == (12, 12)
    np.testing.assert_allclose(own @ own.T, x @ x.T, atol=1e-10)
    fitted, expected = (LinearSVC(dual=False, tol=1e-8, max_iter=1000).fit(given, labels) for given in (own, x))
    np.testing.assert_allclose(back(fitted.coef_), expected.coef_, atol=1e-5)
    np.testing.assert_allclose(fitted.intercept_, expected.intercept_, atol=1e-5)
    assert _in_own_span(x.T)[0].shape == (40, 12)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_view_is_scikit_learns_machine_on_scaled_features(classes: int, tmp_path: Path) -> None:
    train = clusters("train", [row % classes for row in range(40)], (X, W), spread=0.5)
    test = clusters("test", [row % classes for row in range(12)], (X, W), seed=1)
    shard = make_shard(tmp_path / "s.h5", train=train, test=test, classes=("cup", "bowl", "spoon")[:classes])
    settings = make_settings("ct-svm", shard, labels="all", cotraining=ROUNDS | {"scale": "features", "cost": 0.1})
    data = make_data([settings], shard)
    system = SupportVectorMachines(settings, data, CPU)
    view = system.fit("w", TrainingSet(np.arange(40), np.asarray(train.labels)), lambda: None)
    other = make_pipeline(StandardScaler(), LinearSVC(C=0.1, max_iter=100_000, random_state=0))
    other.fit(np.asarray(train.features["w"], np.float64), train.labels)
    decision = other.decision_function(np.asarray(test.features["w"], np.float64))
    if classes == 2:
        decision = np.stack([-decision, decision], 1)
    expected = torch.from_numpy(decision).softmax(-1).numpy()
    assert np.exp(view.log_q(np.arange(40, 52))) == pytest.approx(expected, abs=2e-3)


def test_a_view_scaled_as_a_whole_keeps_its_features_relative_sizes(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "s.h5", (X, V), train=clusters("train", turns(40), (X, V), spread=0.5))
    data = make_data([make_settings("ct-svm", shard)], shard)
    by_view, by_feature = (
        SupportVectorMachines(make_settings("ct-svm", shard, cotraining=ROUNDS | {"scale": scale}), data, CPU).scaling[
            "x"
        ]
        for scale in ("view", "features")
    )
    x = data.features["x"].numpy()[:40].astype(np.float64)
    assert by_feature[1] == pytest.approx(x.std(0))
    assert by_view[1] == pytest.approx(np.full(6, np.sqrt(x.var(0).mean())))
    assert by_view[0] == pytest.approx(x.mean(0))


def test_a_feature_that_never_changes(tmp_path: Path) -> None:
    train, test = clusters("train", turns(40), (X, W)), clusters("test", turns(12), (X, W), seed=1)
    for part in (train, test):
        part.features = {name: np.array(own) for name, own in part.features.items()}
        part.features["x"][:, 2] = 1
    shard = make_shard(tmp_path / "s.h5", train=train, test=test)
    settings = make_settings("ct-svm", shard, cotraining=ROUNDS | {"scale": "features"})
    (run,) = run_stack(tmp_path, [settings], [shard])
    assert scores(run.result())["x+w", "none"] > 0.9


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", CO_TRAINED)
def test_from_settings_to_a_result_for_every_subset(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V))
    (run,) = run_stack(tmp_path, [make_settings(model, shard, epochs=3)], [shard])
    found = scores(run.result())
    missing = ["x", "w", "v", "x+w", "x+v", "w+v"]
    assert list(found) == [(given, "views") for given in missing] + [("x+w+v", "none")]
    assert found["x+w+v", "none"] > 0.9
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
    def keep(_: np.ndarray) -> None: ...

    def shuffle(labels: np.ndarray) -> None:
        labels[9:] = np.random.default_rng(0).integers(-1, 3, 31)

    def relabel(labels: np.ndarray) -> None:
        labels[0], labels[1] = labels[1], labels[0]

    def trained(change: Callable[[np.ndarray], None]) -> bytes:
        train = clusters("train", turns(40), (X, W), spread=0.4)
        train.labelled, train.labels = np.arange(40) < 9, np.array(train.labels)
        change(train.labels)
        shard = make_shard(tmp_path / f"{change.__name__}.h5", train=train)
        (run,) = run_stack(tmp_path / change.__name__, [make_settings(model, shard, labels="shard")], [shard])
        return (run.folder / "weights.safetensors").read_bytes()

    plain = trained(keep)
    assert trained(shuffle) == plain
    assert trained(relabel) != plain


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
    zero, one, again = (run.read_weights() for run in runs)
    assert all(torch.equal(zero[name], again[name]) for name in zero)
    key = "heads.0.weight"
    assert not torch.equal(zero[f"view x: {key}"], zero[f"view v: {key}"])
    assert not torch.equal(zero[f"view x: {key}"], one[f"view x: {key}"])


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
    with pytest.raises(UsageError, match=f"{model} needs two modalities or more.*here is w alone"):
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
