"""Predictions: those of the evaluation, row by row the same as together, for every pattern of missing modalities."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError
from pipeline.shards.shard import Shard
from tests.support.training import CPU
from trainer.evaluation.subsets import subsets
from trainer.inference.bundle import Bundle
from trainer.inference.exporting import gather
from trainer.inference.loaded_model import LoadedModel, of_bundle, open_model
from trainer.inference.loading import load_run, shard_of
from trainer.inference.predictions import patterns
from trainer.training.run_folder import Run

MODELS = ("m2", "sdgm", "ssmvae", "sshmvae", "sshmvae-kl", "three")
Runs = Callable[[str], list[Run]]


def only(present: tuple[str, ...], names: tuple[str, ...], rows: int) -> NDArray[np.bool_]:
    return np.tile([name in present for name in names], (rows, 1))


def features(shard: Shard) -> dict[str, NDArray[np.float32]]:
    return {m.name: shard.test.features(m.name) for m in shard.modalities}


@pytest.mark.parametrize("name", MODELS)
def test_predictions_are_those_of_the_evaluation_and_their_mean_over_seeds(name: str, runs: Runs) -> None:
    both = runs(name)
    shard = shard_of(both[0])
    known = shard.test.labels >= 0
    ensemble, single = of_bundle(gather(both), CPU), of_bundle(gather(both[:1]), CPU)
    seeds = [load_run(run).trained for run in both]
    for given_ in subsets(ensemble.card.names):
        present = only(given_, ensemble.card.names, shard.test.rows)
        evaluated = [np.exp(trained.predictions(given_)[0]) for trained in seeds]
        for model, expected in ((single, evaluated[0]), (ensemble, np.mean(evaluated, axis=0))):
            found = model.predict_features(features(shard), present, shard.scaling)
            np.testing.assert_allclose(found.probabilities[known], expected, atol=2e-6)
            np.testing.assert_array_equal(found.present, present)
            only_probabilities = model.predictor.probabilities(features(shard), present)
            np.testing.assert_allclose(only_probabilities, found.probabilities, atol=1e-6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([1, 2, 3]), min_size=2, max_size=30))
def test_a_row_alone_gives_the_same_as_among_others(bundle: Bundle, patterns_: list[int]) -> None:
    model, rows = of_bundle(bundle, CPU), len(patterns_)
    present = np.array([[bool(p & 1), bool(p & 2)] for p in patterns_])
    rng = np.random.default_rng(0)
    x = {"x": rng.random((rows, 6), np.float32), "w": 9 * rng.random((rows, 3), np.float32)}
    masks = {"x": present[:, 0], "w": present[:, 1]}
    together = model.predictions(x, masks)
    for row in range(rows):
        alone = model.predictions({name: x[name][[row]] if masks[name][row] else None for name in x})
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[row], atol=1e-6)
        np.testing.assert_allclose(alone.opinion_probabilities[0], together.opinion_probabilities[row], atol=1e-6)
        assert alone.unlikeness[0] == pytest.approx(together.unlikeness[row], abs=0.05)
        assert alone.thresholds[0] == together.thresholds[row]
        assert (alone.opinions[0] == together.opinions[row]).all()


def test_opinions_are_the_answers_given_one_modality_alone(bundle: Bundle) -> None:
    model, rng = of_bundle(bundle, CPU), np.random.default_rng(1)
    x = {"x": rng.random((20, 6), np.float32), "w": 9 * rng.random((20, 3), np.float32)}
    both = model.predictions(x)
    for m, name in enumerate(x):
        alone = model.predictions({name: x[name]})
        np.testing.assert_array_equal(both.opinions[:, m], alone.label)
        np.testing.assert_allclose(both.opinion_probabilities[:, m], alone.probability, atol=1e-6)
        assert (alone.opinions[:, 1 - m] == -1).all()
        assert not alone.opinion_probabilities[:, 1 - m].any()
    assert (both.runner_up != both.label).all()
    assert (both.runner_up_probability <= both.probability).all()
    np.testing.assert_allclose(both.probabilities.sum(1), 1, atol=1e-5)


def test_answers_that_are_no_numbers_are_refused_and_the_row_named(bundle: Bundle) -> None:
    model = of_bundle(replace(bundle, weights={name: 1e25 * w for name, w in bundle.weights.items()}), CPU)
    x = {"x": np.array([[0] * 6, [1] * 6], np.float32)}
    for ask in (model.predictions, model.predict_proba):
        with pytest.raises(DataError, match=r"row \d: its values are too large"):
            ask(x)
    for value in (1e3, 1e30, 3e38):  # far from all that training saw, and still an answer
        assert np.isfinite(of_bundle(bundle, CPU).predict_proba({"w": np.full((1, 3), value, np.float32)})).all()


@given(
    st.sampled_from([1, 3, 64, 65]).flatmap(
        lambda m: st.tuples(st.just(m), st.lists(st.lists(st.booleans(), min_size=m, max_size=m), max_size=20))
    )
)
def test_patterns_divide_the_rows(drawn: tuple[int, list[list[bool]]]) -> None:
    modalities, rows = drawn
    present = np.array(rows, np.bool_).reshape(-1, modalities)
    found = list(patterns(present))
    assert [pattern.tolist() for pattern, _ in found] == sorted(map(list, set(map(tuple, rows))))
    assert all(these.tolist() == sorted(these.tolist()) for _, these in found)
    assert sorted(row for _, these in found for row in these.tolist()) == list(range(len(rows)))
    for pattern, these in found:
        assert (present[these] == pattern).all()


def test_abstention_follows_the_threshold_of_the_given_modalities(bundle: Bundle, runs: Runs) -> None:
    """Coverage and accuracy in the card are those of the answers to the test part."""
    shard = shard_of(runs("sshmvae-kl")[0])
    model, known = of_bundle(bundle, CPU), shard.test.labels >= 0
    for subset in bundle.card.subsets:
        found = model.predict_features(features(shard), only(subset.given, model.card.names, 30), shard.scaling)
        answered, right = ~found.abstained[known], (found.label == shard.test.labels)[known]
        assert subset.abstention is not None
        assert subset.rows == 28
        assert subset.accuracy == pytest.approx(right.mean())
        assert subset.abstention.coverage == pytest.approx(answered.mean())
        if answered.any():
            assert subset.abstention.accuracy == pytest.approx(right[answered].mean())


def test_what_is_missing_is_imputed_and_what_was_given_comes_back(bundle: Bundle) -> None:
    model, rng = of_bundle(bundle, CPU), np.random.default_rng(2)
    x = {"x": rng.random((5, 6), np.float32), "w": 9 * rng.random((5, 3), np.float32)}
    mask = {"w": np.array([True, False, True, True, False])}
    full = model.impute(x, mask)
    np.testing.assert_allclose(full["x"], x["x"])
    np.testing.assert_allclose(full["w"][[0, 2, 3]], x["w"][[0, 2, 3]], rtol=1e-6)
    np.testing.assert_allclose(full["w"][[1, 4]], model.impute({"x": x["x"][[1, 4]]})["w"], rtol=1e-5)
    assert full["w"][[1, 4]].any()
    assert model.embed(x, mask).shape == (5, 2 * 4)  # two replicas with four latent values each
    assert model.unlikeness(x).shape == (5,)
    assert set(model.predict(x).tolist()) <= set(model.classes_.tolist())


def test_a_class_that_training_never_saw_is_ranked_above_the_others(runs: Runs) -> None:
    model = of_bundle(gather(runs("sshmvae-kl")[:1]), CPU)
    shard = shard_of(runs("sshmvae-kl")[0])
    usual = model.predict_features(features(shard), only(("x", "w"), ("x", "w"), 30), shard.scaling)
    strange = {name: 1 - values if name == "x" else values[:, ::-1] * 3 for name, values in features(shard).items()}
    found = model.predict_features(strange, usual.present, shard.scaling)
    assert np.median(found.unlikeness) > 95
    assert 20 < np.median(usual.unlikeness) < 80


def test_a_run_folder_works_in_place_of_a_bundle(runs: Runs, tmp_path: Path) -> None:
    def nothing(*_: object) -> LoadedModel:
        raise AssertionError

    run = runs("ssmvae")[0]
    model = open_model(run.folder, "cpu", nothing, nothing)  # type: ignore[arg-type]
    shard = shard_of(run)
    found = model.predictions(features(shard))
    known = shard.test.labels >= 0
    np.testing.assert_allclose(
        found.probabilities[known], np.exp(load_run(run).trained.predictions(("x", "w"))[0]), atol=2e-6
    )
    with pytest.raises(DataError, match="has no encoder for 'x'"):
        model.predictions({"x": ["a.png"]})
    with pytest.raises(DataError, match="holds neither a bundle nor a run"):
        open_model(tmp_path, "cpu", nothing, nothing)  # type: ignore[arg-type]
