"""The rivals, held against direct calls of scikit-learn, and what all of them have in common."""

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

from pipeline.runtime.errors import TrainingError
from tests.support.training import V, W, X, clusters, make_settings, make_shard, turns
from trainer.baselines import consistency_network
from trainer.baselines import references as reference_lines
from trainer.baselines.references import references
from trainer.baselines.rival_task import LEAST_PROBABILITY, Size, Task, load_task, singles_and_all, size_of
from trainer.baselines.rivals import (
    PATIENT,
    QUICK,
    REFERENCES,
    RIVALS,
    measure,
    reason_to_leave_out,
    rival_named,
    rival_names,
)
from trainer.data.selection import choose_labelled

ALONE = [rival.name for rival in RIVALS if rival.predict is not None]
SUBSETS = [("x",), ("w",), ("x", "w")]


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency_network, "LEAST_STEPS", 60)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Forty rows of noisy clusters, six of them labelled; one test example has no label."""
    test = clusters("test", [*turns(60), -1], (X, W), seed=1, spread=0.7)
    train = clusters("train", turns(40), (X, W), spread=0.7)
    shard = make_shard(tmp_path_factory.mktemp("rivals") / "s.h5", train=train, test=test)
    return load_task(make_settings("ssmvae", shard, seed=3), shard)


def predict(name: str, task: Task) -> dict[tuple[str, ...], NDArray[np.float32]]:
    predictor = rival_named(name).predict
    assert predictor is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return predictor(task)


def side_by_side(features: Any, given: tuple[str, ...]) -> NDArray[np.float32]:
    return np.hstack([features[name] for name in given])


def test_a_task_holds_the_runs_own_labels_and_no_other(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "s.h5", test=clusters("test", [0, -1, 2, 1], (X, W)))
    settings = make_settings("ssmvae", shard, labels=9, seed=5)
    labelled = choose_labelled(settings, shard)
    task = load_task(settings, shard)
    assert task.labelled.tolist() == labelled.tolist()
    assert len(task.labels) == 40
    assert task.labels[labelled].tolist() == shard.train.labels[labelled].tolist()
    assert task.test_labels.tolist() == [0, 2, 1]
    assert task.test["x"].tolist() == shard.test.features("x")[[0, 2, 3]].tolist()
    few = load_task(settings, shard, labelled_only=True)
    assert few.labels.tolist() == task.labels[labelled].tolist()
    assert few.train["w"].tolist() == shard.train.features("w")[labelled].tolist()
    one = load_task(make_settings("ssmvae", shard, labels=9, modalities=("w",)), shard, labelled_only=True)
    assert (one.modalities, list(one.train)) == (("w",), ["w"])
    assert size_of(settings, shard) == Size(rows=40, labelled=9, test=3, width=9, classes=3, modalities=2)


def test_few_labelled_rows_are_read_alone(tmp_path: Path) -> None:
    train = clusters("train", turns(40), (X, W))
    shard = make_shard(tmp_path / "s.h5", train=train)
    settings = make_settings("ssmvae", shard, labels=6)
    task = load_task(settings, shard, labelled_only=True)
    np.testing.assert_array_equal(task.train["x"], train.features["x"][choose_labelled(settings, shard)])


@pytest.mark.parametrize("given", SUBSETS)
def test_each_is_what_scikit_learn_makes_of_these_rows(task: Task, given: tuple[str, ...]) -> None:
    train, test = side_by_side(task.train, given), side_by_side(task.test, given)
    everything = side_by_side(task.train, ("x", "w"))
    few, labels = train[task.labelled], task.labels[task.labelled]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = {
            "logistic-regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(few, labels),
            "mlp": make_pipeline(StandardScaler(), MLPClassifier(random_state=3)).fit(few, labels),
            "label-spreading": LabelSpreading(kernel="knn", n_neighbors=7).fit(train, task.labels),
            "self-training": SelfTrainingClassifier(
                make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            ).fit(train, task.labels),
        }
        for name, classifier in expected.items():
            probabilities = np.exp(predict(name, task)[given])
            np.testing.assert_allclose(probabilities, classifier.predict_proba(test), atol=1e-6, err_msg=name)
        taught = LabelSpreading(kernel="knn", n_neighbors=7).fit(everything, task.labels).transduction_
    machine = SVC().fit(train, taught)
    log_q = predict("ls-svc", task)[given]
    decision = machine.decision_function(test)
    np.testing.assert_allclose(log_q - log_q[:, :1], decision - decision[:, :1], atol=1e-4)
    assert (log_q.argmax(1) == decision.argmax(1)).all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ALONE)
def test_predictions_are_proper_probabilities_for_each_single_modality_and_all(
    name: str, classes: int, tmp_path: Path
) -> None:
    labels = [row % classes for row in range(60)]
    shard = make_shard(
        tmp_path / "s.h5",
        modalities=(X, W, V),
        classes=("cup", "bowl", "spoon")[:classes],
        train=clusters("train", labels, (X, W, V)),
        test=clusters("test", labels, (X, W, V), seed=1),
    )
    task = load_task(make_settings("ssmvae", shard), shard)
    predictions = predict(name, task)
    assert list(predictions) == [("x",), ("w",), ("v",), ("x", "w", "v")]
    for log_q in predictions.values():
        assert log_q.shape == (60, classes)
        assert np.isfinite(log_q).all()
        np.testing.assert_allclose(np.exp(log_q.astype(float)).sum(1), 1, atol=1e-5)
    measured = measure(rival_named(name), task)
    assert [(score.given, score.examples) for score in measured.scores] == [
        ("x", 60), ("w", 60), ("v", 60), ("x+w+v", 60)
    ]  # fmt: skip
    assert measured.scores[-1].accuracy > 0.9  # the clusters are far apart: a permutation of the classes would fail
    assert measured.seconds > 0


@pytest.mark.parametrize("name", ["mlp", "consistency-mlp"])
def test_what_is_random_depends_on_the_seed_alone(name: str, task: Task) -> None:
    first, again, other = (predict(name, replace(task, seed=seed)) for seed in (3, 3, 4))
    for given in SUBSETS:
        np.testing.assert_array_equal(first[given], again[given])
    assert any((first[given] != other[given]).any() for given in SUBSETS)


def test_a_row_without_labelled_neighbours_gets_equal_probabilities(task: Task) -> None:
    """The labelled rows lie together, far from all others: nothing spreads from them."""
    train = {name: np.array(values) for name, values in task.train.items()}
    for values in train.values():
        values[task.labelled] += 1000
    rows = np.tile(task.labelled, 2)  # eighteen rows in all: more than there are neighbours
    padded = {name: np.concatenate([values, values[rows]]) for name, values in train.items()}
    apart = replace(task, train=padded, labels=np.concatenate([task.labels, task.labels[rows]]))
    log_q = predict("label-spreading", apart)[("x",)]
    np.testing.assert_allclose(np.exp(log_q), 1 / 3, rtol=1e-6)


def test_a_confident_mistake_costs_a_finite_amount(task: Task) -> None:
    train = {name: np.tile(values[task.labelled], (3, 1)) for name, values in task.train.items()}
    labels = np.tile(task.labels[task.labelled], 3)
    wrong = replace(task, train=train, labels=labels, test=train, test_labels=(labels + 1) % 3)
    (score, *_) = measure(rival_named("label-spreading"), wrong).scores
    assert score.accuracy < 0.5
    assert 0 < score.nll <= -np.log(LEAST_PROBABILITY) * 1.001


def test_all_rows_labelled_leaves_nothing_to_spread_and_still_works(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "s.h5")
    task = load_task(make_settings("ssmvae", shard, labels="all"), shard)
    for name in ("self-training", "label-spreading", "ls-svc", "consistency-mlp"):
        assert measure(rival_named(name), task).scores[-1].accuracy == 1


def test_what_would_take_long_is_left_out_with_its_reason() -> None:
    digits = Size(rows=1437, labelled=100, test=360, width=64, classes=10, modalities=2)
    mnist = Size(rows=60_000, labelled=100, test=10_000, width=784, classes=10, modalities=2)
    large = replace(mnist, rows=600_000)
    assert all(reason_to_leave_out(rival, digits, QUICK) is None for rival in map(rival_named, REFERENCES))
    assert reason_to_leave_out(rival_named("logistic-regression"), mnist, QUICK) is None
    reason = reason_to_leave_out(rival_named("ls-svc"), mnist, QUICK)
    assert reason == (
        "60,000 training rows of 784 features in 10 classes, 100 of them labelled, would take it longer than a second "
        "or two"
    )
    assert [rival.name for rival in RIVALS if reason_to_leave_out(rival, mnist, PATIENT)] == []
    left_out = [rival.name for rival in RIVALS if reason_to_leave_out(rival, large, PATIENT)]
    assert left_out == ["ls-svc", "label-spreading", "consistency-mlp"]
    assert "ten minutes" in str(reason_to_leave_out(rival_named("ls-svc"), large, PATIENT))
    assert reason_to_leave_out(rival_named("ls-svc"), replace(digits, classes=51), QUICK) is None
    assert reason_to_leave_out(rival_named("ls-svc"), replace(digits, classes=1000), QUICK)  # 499,500 pairs of them
    single = replace(digits, modalities=1)
    assert [rival.name for rival in RIVALS if reason_to_leave_out(rival, single, PATIENT)] == ["co-training"]
    assert "two modalities" in str(reason_to_leave_out(rival_named("co-training"), single, PATIENT))


@pytest.mark.parametrize("name", [name for name in ALONE if name != "consistency-mlp"])
def test_features_that_cannot_be_fitted_are_one_sentence(name: str, task: Task) -> None:
    infinite = replace(task, train={given: np.full_like(values, np.inf) for given, values in task.train.items()})
    with pytest.raises(TrainingError, match=f"{re.escape(rival_named(name).title)} cannot be fitted: "):
        measure(rival_named(name), infinite)


def test_a_reference_that_cannot_be_fitted_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Huge values overflow in the distances of label spreading; logistic regression scales them first."""
    parts = {name: clusters(name, turns(40), (V, W)) for name in ("train", "test")}
    for part in parts.values():
        part.features["v"] = part.features["v"] * np.float32(2e38)
    shard = make_shard(tmp_path / "s.h5", modalities=(V, W), **parts)
    simple, _ = references(make_settings("ssmvae", shard), shard)
    assert simple.scores[-1].accuracy == 1

    def refuse(*_: object) -> None:
        raise TrainingError("it cannot be fitted: no")

    monkeypatch.setattr(reference_lines, "measure", refuse)
    simple, _ = references(make_settings("ssmvae", shard), shard)
    assert (simple.scores, simple.sentence) == ((), "logistic regression was left out: it cannot be fitted: no.")


def test_a_reference_names_the_command_that_computes_it_only_if_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard(tmp_path / "s.h5")
    settings = make_settings("ssmvae", shard)
    monkeypatch.setattr(reference_lines, "QUICK", 0)
    assert all(of.sentence.endswith("; mmssl compare computes it.") for of in references(settings, shard))
    monkeypatch.setattr(reference_lines, "PATIENT", 0)
    for reference in references(settings, shard):
        assert "40 training rows of 9 features in 3 classes, 6 of them labelled" in reference.sentence
        assert "mmssl compare" not in reference.sentence


def test_a_run_that_streams_has_no_references(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "s.h5")
    for reference in references(make_settings("ssmvae", shard, window=20), shard):
        assert "streams its data from disk" in reference.sentence
        assert reference.scores == ()


def test_the_registry_names_each_once() -> None:
    assert len(set(rival_names())) == len(RIVALS) == len({rival.title for rival in RIVALS}) == 7
    assert singles_and_all(["x"]) == [("x",)]
