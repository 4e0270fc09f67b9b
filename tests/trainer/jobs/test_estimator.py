"""`mmssl.Classifier`: scikit-learn's contract, over one array or a mapping of arrays with some of them missing."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

import mmssl
from tests.support.paths import ROOT

FAST: dict[str, Any] = {"device": "cpu", "epochs": 4, "batch_size": 16, "labelled_batch_size": 16}
# What scikit-learn's checks expect and this estimator does not do (docs/guide/predict.md).
NOT_OURS = {
    "check_classifiers_classes": "it has a class named -1, which stands for unlabelled rows here",
}


def digits(rows: int = 120, seed: int = 0) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.str_]]:
    """Three classes in two modalities of different kinds and widths."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 3
    x = (rng.random((rows, 6)) < 0.1 + 0.8 * (np.arange(6) % 3 == label[:, None])).astype(np.float32)
    w = (rng.normal(0, 1, (rows, 4)) + 40 * label[:, None] - 7).astype(np.float32)
    return {"x": x, "w": w}, np.array(["cup", "bowl", "spoon"])[label]


def few(y: NDArray[Any], count: int = 12, none: Any = None) -> NDArray[Any]:
    labels = y.astype(object)
    labels[count:] = none
    return labels


@pytest.fixture(scope="module")
def fitted() -> Any:
    x, y = digits()
    return mmssl.Classifier(**FAST).fit(x, few(y))


def test_it_learns_from_few_labels_and_answers_with_a_modality_missing(fitted: Any) -> None:
    x, y = digits(seed=1)
    assert fitted.classes_.tolist() == ["bowl", "cup", "spoon"]
    assert fitted.score(x, y) > 0.9
    assert fitted.score({"x": x["x"], "w": None}, y) > 0.6
    some = x["w"].copy()
    some[::2] = np.nan
    mixed = fitted.predict_proba({"x": x["x"], "w": some})
    np.testing.assert_allclose(mixed[1::2], fitted.predict_proba(x)[1::2], atol=1e-6)
    np.testing.assert_allclose(mixed[::2], fitted.predict_proba({"x": x["x"]})[::2], atol=1e-6)
    np.testing.assert_allclose(mixed, fitted.predict_proba(x, present={"w": np.arange(120) % 2 == 1}), atol=1e-6)
    np.testing.assert_allclose(mixed.sum(1), 1)
    full = fitted.model_.impute({"x": x["x"], "w": some})["w"]  # in the values' own scale
    assert np.abs(full[::2] - x["w"][::2]).mean() < 30


@pytest.mark.parametrize("none", [None, "", np.nan])
def test_every_way_to_say_unlabelled(none: Any) -> None:
    x, y = digits(30)
    model = mmssl.Classifier(**FAST | {"epochs": 1}).fit(x, few(y, 9, none))
    assert model.classes_.tolist() == ["bowl", "cup", "spoon"]
    assert len(model.model_.bundle.labelled) == 9


@pytest.mark.parametrize(
    ("classes", "none"),
    [([5, 6, 7], -1), ([-7, 6, 2**40], None), ([5.0, 0.0, 2.0], np.nan), ([False, True], None), (["b", "a"], "")],
    ids=["integers", "others", "reals", "booleans", "texts"],
)
def test_labels_come_back_as_they_were_given(tmp_path: Path, classes: list[Any], none: Any) -> None:
    x, _ = digits(30)
    labels = [classes[row % len(classes)] if row < 9 else none for row in range(30)]
    model = mmssl.Classifier(**FAST | {"epochs": 1}).fit(x, labels)
    assert model.classes_.tolist() == sorted(classes)
    model.save(tmp_path / "model")
    for again in (
        mmssl.Classifier.load(tmp_path / "model", device="cpu"),
        mmssl.load(tmp_path / "model", device="cpu"),
    ):
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
        assert again.predict(x).dtype.kind == model.predict(x).dtype.kind == np.array(classes).dtype.kind


def test_a_loaded_classifier_fits_as_the_saved_one_did(tmp_path: Path) -> None:
    x, y = digits(30)
    model = mmssl.Classifier(**FAST | {"epochs": 1}, preset="paper", alpha=7.0, distributions={"x": "gaussian"})
    model.fit(x, few(y, 9)).save(tmp_path / "model")
    again = mmssl.Classifier.load(tmp_path / "model", device="cpu")
    assert again.get_params()["alpha"] == 7
    clone(again).fit(x, few(y, 9)).save(tmp_path / "again")
    assert (tmp_path / "again" / "model.json").read_bytes() == (tmp_path / "model" / "model.json").read_bytes()


def test_folds_side_by_side_share_a_workspace(tmp_path: Path) -> None:
    x, y = digits(60)
    joined, columns = np.hstack([x["x"], x["w"]]), {"x": (0, 6), "w": (6, 10)}
    alone = mmssl.Classifier(**FAST | {"epochs": 1}, columns=columns)
    base = clone(alone).set_params(workspace=tmp_path)
    scores = cross_val_score(base, joined, y, cv=2, n_jobs=2, error_score="raise")
    assert scores.tolist() == cross_val_score(alone, joined, y, cv=2, error_score="raise").tolist()
    assert cross_val_score(base, joined, y, cv=2, error_score="raise").tolist() == scores.tolist()
    assert len(list((tmp_path / "shards").iterdir())) == len(list((tmp_path / "runs").iterdir())) == 2


def test_rows_that_lack_a_modality_train_too_and_are_marked_so(tmp_path: Path) -> None:
    x, y = digits(40)
    x["w"][::4] = np.nan
    mmssl.Classifier(**FAST | {"epochs": 1}, workspace=tmp_path).fit(x, few(y))
    shard = mmssl.Shard.open(next((tmp_path / "shards").glob("classifier-*.h5")))
    np.testing.assert_array_equal(shard.train.has("w"), np.arange(40) % 4 > 0)
    assert [m.distribution for m in shard.modalities] == ["bernoulli", "gaussian"]
    values = shard.train.features("w")[shard.train.has("w")]
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(0), 1, atol=1e-5)
    assert shard.test.rows == 0
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 1


def test_nothing_is_left_behind_without_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    x, y = digits(30)
    mmssl.Classifier(**FAST | {"epochs": 1}).fit(x, few(y))
    assert not list(tmp_path.iterdir())


def test_settings_are_parameters_of_clones_and_searches() -> None:
    model = mmssl.Classifier("ssmvae", seed=3, smoothness=2.0)
    assert model.get_params()["smoothness"] == 2.0
    copied = clone(model).set_params(alpha=5.0, epochs=2)
    assert copied.get_params() == model.get_params() | {"alpha": 5.0, "epochs": 2}
    x, y = digits(60)
    joined, columns = np.hstack([x["x"], x["w"]]), {"x": (0, 6), "w": (6, 10)}
    base = mmssl.Classifier(**FAST | {"epochs": 1}, columns=columns)
    search = GridSearchCV(base, {"alpha": [1.0, 20.0]}, cv=2, error_score="raise").fit(joined, y)
    assert set(search.cv_results_["param_alpha"]) == {1.0, 20.0}
    assert search.predict(joined).shape == (60,)
    assert cross_val_score(base, joined, y, cv=2, error_score="raise").shape == (2,)
    joined[:, 6:] = np.nan  # every row lacks w
    assert search.best_estimator_.predict(joined).shape == (60,)


def test_distributions_can_be_given() -> None:
    x, y = digits(30)
    model = mmssl.Classifier(**FAST | {"epochs": 1}, distributions={"x": "gaussian"}).fit(x, y)
    assert [m.distribution for m in model.model_.modalities] == ["gaussian", "gaussian"]


def test_the_prior_is_a_setting() -> None:
    x, y = digits(60)
    for given, expected in (("uniform", "uniform"), ("labelled", "labelled"), ((0.2, 0.5, 0.3), (0.2, 0.5, 0.3))):
        model = mmssl.Classifier(**FAST | {"epochs": 1}, prior=given).fit(x, y)
        assert model.model_.predictor.network.settings.prior == expected
    with pytest.raises(mmssl.MmsslError, match="the prior has 2 probabilities that sum to 1, for 3 classes"):
        mmssl.Classifier(**FAST | {"epochs": 1}, prior=(0.5, 0.5)).fit(x, y)


@pytest.mark.parametrize(
    ("changes", "x", "y", "sentence"),
    [
        ({}, {}, None, "X holds no modality"),
        ({}, {"x": np.zeros((4, 2)), "w": np.zeros((5, 2))}, None, "different numbers of rows"),
        ({}, {"x": np.full((30, 2), np.nan)}, None, "row 0 has no modality at all"),
        ({}, {"x": np.where(np.eye(30, 2) > 0, np.nan, 1)}, None, "contains NaN or infinity: row 0 of x"),
        ({}, {"x": [["a"]] * 30}, None, "x is not an array of numbers"),
        ({}, {"x": np.zeros(30)}, None, r"x has the shape \(30,\)"),
        ({}, None, ["cup"] * 30, "y has 1 class"),
        ({}, None, [None] * 30, "y has 0 class"),
        ({}, None, ["cup", "bowl"], r"y has the shape \(2,\), but there are 30 rows"),
        ({"distributions": {"v": "gaussian"}}, None, None, "distributions names 'v'"),
        ({"smothness": 1}, None, None, "no parameter 'smothness'"),
        ({"alpha": -1}, None, None, "alpha"),
        ({"model": "resnet"}, None, None, "no model 'resnet'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(changes: dict[str, Any], x: Any, y: Any, sentence: str) -> None:
    good, labels = digits(30)
    with pytest.raises(mmssl.MmsslError, match=sentence):
        mmssl.Classifier(**FAST | {"epochs": 1} | changes).fit(good if x is None else x, labels if y is None else y)


def test_mistakes_of_prediction_are_named(fitted: Any) -> None:
    x, _ = digits(5)
    for wrong, sentence in (
        ({"v": x["x"]}, "no modality 'v'"),
        ({"x": x["x"][:, :3]}, "takes rows of 6 values"),
        ({"x": ["a.png"] * 5}, "give arrays of numbers"),
        ({"x": x["x"] + 5}, r"outside the \[0, 1\]"),
        ({"x": None, "w": None}, "no modality is given"),
    ):
        with pytest.raises(ValueError, match=sentence):
            fitted.predict(wrong)
    with pytest.raises(NotFittedError):
        mmssl.Classifier().predict(x)
    with pytest.raises(NotFittedError):
        mmssl.Classifier().save("nowhere")
    with pytest.raises(ValueError, match="columns of w"):
        mmssl.Classifier(**FAST, columns={"w": (3, 9)}).fit(np.zeros((30, 4)), [0, 1] * 15)


def test_the_ten_lines_of_the_guide_do_the_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/guide/predict.md").read_text(encoding="utf-8")
    (block,) = (found for found in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Classifier" in found)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "predict.md", "exec"), names)
    assert names["model"].score({"camera": names["camera"], "touch": names["touch"]}, names["label"]) > 0.9
    assert (tmp_path / "model" / "model.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn_pass() -> None:
    """All of them but those in NOT_OURS; a check that does not apply to this machine is skipped."""
    passed = 0
    for estimator, check in estimator_checks_generator(
        mmssl.Classifier(device="cpu", epochs=1), expected_failed_checks=NOT_OURS, mark="skip"
    ):
        try:
            check(estimator)
        except pytest.skip.Exception:
            continue
        except Exception as error:
            if type(error).__name__ == "SkipTest":
                continue
            raise AssertionError(f"{check}: {error}") from error
        passed += 1
    assert passed > 45
