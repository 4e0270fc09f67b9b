"""The views of support vector machines, held against scikit-learn's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tests.support.training import (
    CPU,
    ROUNDS,
    V,
    W,
    X,
    clusters,
    make_data,
    make_settings,
    make_shard,
    run_stack,
    scores,
    turns,
)  # fmt: skip
from trainer.baselines.cotrained_svm import SupportVectorMachines, _in_row_space
from trainer.baselines.cotraining import TrainingSet


def test_machines_of_more_features_than_examples_are_those_of_the_features() -> None:
    """They are fitted in the space of the examples; the library, on the features themselves, is the judge."""
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(12, 40)), np.arange(12) % 3
    rotated, back = _in_row_space(x)
    assert rotated.shape == (12, 12)
    np.testing.assert_allclose(rotated @ rotated.T, x @ x.T, atol=1e-10)
    fitted, expected = (LinearSVC(dual=False, tol=1e-8, max_iter=1000).fit(given, labels) for given in (rotated, x))
    np.testing.assert_allclose(back(fitted.coef_), expected.coef_, atol=1e-5)
    np.testing.assert_allclose(fitted.intercept_, expected.intercept_, atol=1e-5)
    assert _in_row_space(x.T)[0].shape == (40, 12)


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
        features = {name: np.array(values) for name, values in part.features.items()}
        features["x"][:, 2] = 1
        part.features = features
    shard = make_shard(tmp_path / "s.h5", train=train, test=test)
    settings = make_settings("ct-svm", shard, cotraining=ROUNDS | {"scale": "features"})
    (run,) = run_stack(tmp_path, [settings], [shard])
    assert scores(run.result())["x+w", "none"] > 0.9
