"""Confusions, reliability and latent spaces, by value."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.training import W, X, clusters, make_settings, make_shard, run_stack, turns
from trainer.evaluation.metrics import calibration_error
from trainer.inference.loading import load_runs
from trainer.reporting.diagnostics import (
    confusion_figure,
    confusions,
    latent_figure,
    latents,
    predict,
    project,
    reliability,
    reliability_figure,
)


def test_confusions_are_shares_of_the_true_class() -> None:
    log_q = np.log(np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], np.float32))
    shares = confusions(log_q, np.array([0, 0, 1, 1]))
    assert shares[:2].tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0]]
    assert np.isnan(shares[2]).all()  # no example


def test_reliability_is_the_calibration_errors_own_bins() -> None:
    rng = np.random.default_rng(0)
    log_q = np.log(rng.dirichlet(np.full(4, 0.4), 500)).astype(np.float32)
    log_q[0] = [0, -100, -100, -100]  # a confidence of 1
    label = rng.integers(0, 4, 500)
    mean, accuracy, count = reliability(log_q, label)
    assert count.sum() == 500
    confidence = np.exp(log_q.max(-1).astype(np.float64))
    expected = calibration_error(confidence, log_q.argmax(-1) == label)
    assert (count * np.abs(accuracy - mean)).sum() / 500 == pytest.approx(expected)
    assert (np.diff(mean) > 0).all()


def test_the_projection_is_the_joint_posteriors_and_serves_all() -> None:
    rng = np.random.default_rng(1)
    joint = rng.standard_normal((50, 5)).astype(np.float32) * np.array([5, 3, 1, 0.1, 0.1], np.float32)
    flat = project({"x": joint[:20] + 1, "x+w": joint})
    assert [points.shape for points in flat.values()] == [(20, 2), (50, 2)]
    centred = joint - joint.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    assert flat["x+w"].std(0) * np.sqrt(50) == pytest.approx(values[:2], rel=1e-4)
    line = project({"x+w": joint[:, :1]})["x+w"]
    assert (line[:, 1] == 0).all()  # a latent of one dimension is drawn on a line


@pytest.mark.parametrize("model", ["ssmvae", "sshmvae", "jmvae", "sdgm"])
def test_a_runs_diagnostics_agree_with_its_scores(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path, [make_settings(model, shard)], [shard])
    (loaded,) = load_runs([run])
    predictions = predict(loaded)
    first: dict[str, float] = {}
    for score in run.result().scores:
        first.setdefault(score.given, score.accuracy)
    assert {given: float((log_q.argmax(-1) == label).mean()) for given, (log_q, label) in predictions.items()} == first
    for points, label in latents(loaded, points=7).values():
        assert points.shape == (7, 4)
        assert label.tolist() == shard.test.labels[:7].tolist()
    panels = len(first)
    assert len(latent_figure(loaded).axes) == panels
    assert len(confusion_figure(predictions, shard.classes).axes) == panels
    (axis,) = reliability_figure(predictions).axes
    assert len(axis.get_legend_handles_labels()[0]) == panels + 1


def test_rows_without_any_of_the_given_modalities_are_in_no_picture(tmp_path: Path) -> None:
    """As they are in no score."""
    test = clusters("test", turns(12), (X, W), seed=1)
    has_w = np.arange(12) % 4 > 0
    test.present = {"w": has_w}
    test.features = {"x": test.features["x"], "w": test.features["w"] * has_w[:, None]}
    shard = make_shard(tmp_path / "shard.h5", test=test)
    (run,) = run_stack(tmp_path, [make_settings("sshmvae-kl", shard)], [shard])
    (loaded,) = load_runs([run])
    predictions, points = predict(loaded), latents(loaded)
    for score in run.result().scores:
        log_q, label = predictions[score.given]
        assert len(log_q) == len(points[score.given][0]) == score.examples == (9 if score.given == "w" else 12)
        assert (log_q.argmax(-1) == label).mean() == pytest.approx(score.accuracy)
        assert points[score.given][1].tolist() == label.tolist()
    joint = latents(loaded)["x+w"][0]  # a row without w is encoded by q(a|x), as in the scores
    assert np.allclose(joint[::4], points["x"][0][::4], atol=1e-5)
    assert not np.allclose(joint[1::4], points["x"][0][1::4], atol=1e-3)
    assert len(latent_figure(loaded).axes) == 3
