"""Scores against scikit-learn and by hand, and what a model is given where modalities are missing."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pipeline.runtime.errors import TrainingError
from pipeline.shards.shard import Modality
from tests.support.training import NETWORKS, make_settings, make_shard, make_step
from trainer.data.resident import Resident
from trainer.data.selection import Examples
from trainer.evaluation import evaluate as evaluation
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import calibration_error, score
from trainer.evaluation.missing_modalities import iterate
from trainer.models.bound import Bound
from trainer.models.posterior import pool
from trainer.nn.distributions import DiagonalNormal, SquaredError
from trainer.nn.rng import Noise

X, W, V = Modality("x", 2, "gaussian"), Modality("w", 2, "nonnegative"), Modality("v", 2, "bernoulli")


# --- measures --------------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    """Five bins: 0.2 lies in the first, 0.21 in the second, 0.81 and 1 in the last."""
    confidence = np.array([0.2, 0.21, 0.81, 1.0])
    right = np.array([True, False, False, True])
    assert calibration_error(confidence, right, bins=5) == pytest.approx((0.8 + 0.21 + 0.81) / 4)
    assert calibration_error(confidence, right, bins=1) == pytest.approx(abs(2 - confidence.sum()) / 4)


@pytest.mark.parametrize("k", range(1, 16))
def test_a_confidence_on_a_bins_edge_lies_below_it(k: int) -> None:
    edge, right = k / 15, np.array([True, False])
    below = np.array([edge, edge - 1e-9])
    assert calibration_error(below, right) == pytest.approx(abs(1 - 2 * edge) / 2, abs=1e-6)
    if k < 15:
        above = np.array([edge, edge + 1e-9])
        assert calibration_error(above, right) == pytest.approx(0.5, abs=1e-6)


def test_full_confidence_is_in_the_last_bin_and_no_confidence_in_the_first() -> None:
    assert calibration_error(np.array([1.0, 0.95]), np.array([False, True])) == pytest.approx(0.95 / 2)
    assert calibration_error(np.array([1 + 1e-7, 1.0]), np.array([True, True])) == pytest.approx(0, abs=1e-6)
    assert calibration_error(np.array([0.0, 0.01]), np.array([False, True])) == pytest.approx(0.99 / 2)


def test_a_calibrated_classifier_has_no_calibration_error() -> None:
    confidence = np.repeat([0.25, 0.5, 0.75], 8)
    right = np.concatenate([np.arange(8) < 8 * c for c in (0.25, 0.5, 0.75)])
    assert calibration_error(confidence, right) == pytest.approx(0)


def test_scores_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((500, 7)).astype(np.float32)
    log_q = torch.from_numpy(logits).log_softmax(-1).numpy()
    label = rng.integers(0, 7, 500)
    result = score("x+w", "none", log_q, label)
    assert (result.given, result.completion, result.examples) == ("x+w", "none", 500)
    assert result.accuracy == accuracy_score(label, log_q.argmax(-1))
    p = np.exp(log_q.astype(np.float64))
    assert result.nll == pytest.approx(log_loss(label, p / p.sum(-1, keepdims=True), labels=range(7)), rel=1e-6)
    bins = [np.flatnonzero((p.max(-1) > low / 15) & (p.max(-1) <= (low + 1) / 15)) for low in range(15)]
    hit = log_q.argmax(-1) == label
    by_bins = sum(len(b) / 500 * abs(hit[b].mean() - p.max(-1)[b].mean()) for b in bins if len(b))
    assert result.ece == pytest.approx(by_bins)


def test_predictions_that_are_no_numbers() -> None:
    with pytest.raises(TrainingError, match="predictions from x are not numbers"):
        score("x", "none", np.array([[0.0, math.nan]], np.float32), np.array([0]))


# --- what a model is given -------------------------------------------------------------------------------------------


class Fake(nn.Module):
    """Says what it was asked; its class is where the first modality it is given is largest, its latent their sum."""

    completions: ClassVar[tuple[str, ...]] = ("zeros", "encoders", "iterative")
    has_classifier: ClassVar[bool] = True

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self.noise = noise
        self.asked: list[tuple[dict[str, Tensor], int]] = []

    def classify(self, x: Mapping[str, Tensor], samples: int = 0) -> Tensor:
        self.asked.append((dict(x), samples))
        return next(iter(x.values())).log_softmax(-1)

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal:
        """a = x + w / 2, all but exactly."""
        mean = x["x"] + 0.5 * x["w"] if "w" in x else x["x"]
        return DiagonalNormal(mean, torch.full_like(mean, 1e-14), self.noise)

    def decode(self, latent: Tensor, modality: str, /) -> SquaredError:
        return SquaredError(latent if modality == "w" else 10 * latent)

    def latent_mean(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.encode(x).mean

    def reconstruct(self, x: Mapping[str, Tensor], target: str) -> Tensor:
        return self.decode(self.latent_mean(x), target).mean

    def bound(self, x: Mapping[str, Tensor], y: Tensor | None = None) -> Bound:
        assert y is None
        return Bound(log_p={"p(x)": x["x"].sum(-1)}, log_q={"q(z)": self.noise.normal(x["x"].shape).sum(-1) * 0})


def make(tests: list[list[int]], modalities: tuple[Modality, ...] = (X, W), rows: int = 30, seed: int = 0) -> Resident:
    """Data of as many replicas as there are test sets; row r's label is where its x is larger."""
    rng = np.random.default_rng(seed)
    features = {m.name: torch.from_numpy(rng.random((rows, m.width), dtype=np.float32)) for m in modalities}
    label = features["x"].argmax(-1)
    examples = tuple(
        Examples(np.arange(6), np.arange(6, 10), np.array(test_rows, np.int64), tuple("abcdef")) for test_rows in tests
    )
    return Resident(features, {}, label, torch.arange(len(label)), modalities, ("left", "right"), examples)


def test_zeros_and_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "completions", ("zeros", "encoders"))
    data, noise = make([[10, 11, 12]]), Noise([0])
    fake = Fake(noise)
    (result,) = evaluate(fake, noise, data, iterations=1, samples=4)
    assert [(s.given, s.completion) for s in result.scores] == [
        ("x", "zeros"), ("x", "encoders"), ("w", "zeros"), ("w", "encoders"), ("x+w", "none"),
    ]  # fmt: skip
    x, w = ({name: f[None, 10:13] for name, f in data.features.items()}[name] for name in "xw")
    expected = [{"x": x, "w": 0 * w}, {"x": x}, {"x": 0 * x, "w": w}, {"w": w}, {"x": x, "w": w}]
    for (given, samples), wanted in zip(fake.asked, expected, strict=True):
        assert samples == 4
        assert given.keys() == wanted.keys()
        assert all(torch.equal(given[name], wanted[name]) for name in wanted)
    assert result.scores[0].accuracy == 1
    assert result.elbo == pytest.approx(float(x.sum(-1).mean()))


@pytest.mark.parametrize("iterations", [1, 3, 40])
def test_iterative_sampling_converges_to_what_the_model_says(iterations: int) -> None:
    """w <- x + w / 2 from |noise|: after n steps 2x + (w_0 - 2x) / 2^n."""
    noise = Noise([3, 4])
    fake = Fake(noise)
    x = torch.rand(2, 5, 2)
    start = Noise([3, 4]).normal((2, 5, 2)).abs()
    full = iterate(fake, noise, {"x": x}, (X, W), iterations)
    assert list(full) == ["x", "w"]
    assert torch.equal(full["x"], x)
    assert torch.allclose(full["w"], 2 * x + (start - 2 * x) / 2**iterations, atol=1e-5)


def test_every_missing_modality_is_drawn_from_the_same_latent() -> None:
    noise = Noise([3])
    full = iterate(Fake(noise), noise, {"x": torch.rand(1, 4, 2)}, (X, W, V), 5)
    assert torch.equal(full["v"], 10 * full["w"])
    assert list(full) == ["x", "w", "v"]


def test_iterative_sampling_starts_from_noise_of_the_observations_family() -> None:
    noise = Noise([3])
    given = Modality("g", 1, "gaussian")
    full = iterate(Fake(noise), noise, {"g": torch.zeros(1, 4000, 1)}, (given, X, W, V), 0)
    x, w, v = (full[name].flatten() for name in "xwv")
    assert float(x.mean()) == pytest.approx(0, abs=0.06)
    assert float(x.std()) == pytest.approx(1, abs=0.05)
    assert float(w.min()) >= 0
    assert float(w.mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.05)
    assert set(v.tolist()) == {0.0, 1.0}
    assert float(v.mean()) == pytest.approx(0.5, abs=0.04)
    assert full["v"].shape == (1, 4000, 2)


def test_so_many_iterations_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "completions", ("iterative",))
    counts: list[list[str]] = []
    encode = Fake.encode
    monkeypatch.setattr(Fake, "encode", lambda self, x: counts.append(sorted(x)) or encode(self, x))
    data, noise = make([[10, 11, 12]]), Noise([0])
    (full,) = evaluate(Fake(noise), noise, data, iterations=7, samples=0)
    assert counts == [["w", "x"]] * 14  # for x and for w, each completed by the other
    assert [s.completion for s in full.scores] == ["iterative", "iterative", "none"]
    counts.clear()
    (fast,) = evaluate(Fake(noise), noise, data, iterations=7, samples=0, fast=True, bound=False)
    assert counts == []
    assert [s.completion for s in fast.scores] == ["none"]
    assert fast.elbo is None


# --- test sets of different lengths ----------------------------------------------------------------------------------


def test_padding_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of four; a test set of three, one of ten, and one of one."""
    monkeypatch.setattr(evaluation, "BATCH", 4)
    tests = [[10, 11, 12], list(range(13, 23)), [29]]
    noise = Noise([1, 2, 3])
    together = evaluate(Fake(noise), noise, make(tests), iterations=3, samples=0)
    for replica, test_rows in enumerate(tests):
        alone_noise = Noise([replica + 1])
        (alone,) = evaluate(Fake(alone_noise), alone_noise, make([test_rows]), iterations=3, samples=0)
        assert together[replica].elbo == pytest.approx(alone.elbo, rel=1e-6)
        for stacked_score, alone_score in zip(together[replica].scores, alone.scores, strict=True):
            assert (stacked_score.given, stacked_score.completion, stacked_score.examples) == (
                alone_score.given,
                alone_score.completion,
                len(test_rows),
            )
            assert stacked_score.accuracy == alone_score.accuracy
            assert stacked_score.nll == pytest.approx(alone_score.nll, rel=1e-6)
            assert stacked_score.ece == pytest.approx(alone_score.ece, abs=1e-6)


# --- evaluation and training do not meet -----------------------------------------------------------------------------


def test_evaluation_leaves_noise_mode_and_statistics_alone(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    networks = NETWORKS["sshmvae"] | {"q(y|a)": "a-D8BR-Dropout0.5, DK"}
    stack = [make_settings("sshmvae", shard, seed=seed, networks=networks) for seed in range(2)]
    step = make_step(stack, shard)
    for number in range(3):
        step(number)
    before = [step.noise.state(r) for r in range(2)], {k: v.clone() for k, v in step.model.state_dict().items()}
    first = evaluate(step.model, step.noise, step.data, iterations=3, samples=2)
    assert step.model.training
    assert all(module.training for module in step.model.modules())
    assert all(torch.equal(step.noise.state(r), before[0][r]) for r in range(2))
    assert all(torch.equal(tensor, before[1][name]) for name, tensor in step.model.state_dict().items())
    assert evaluate(step.model, step.noise, step.data, iterations=3, samples=2) == first  # and is itself repeatable
    step.model.eval()
    assert evaluate(step.model, step.noise, step.data, iterations=3, samples=2) == first
    assert not step.model.training
    broken: dict[str, Any] = {"iterations": 3, "samples": 2}
    step.model.train()
    step.model.bound = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluate(step.model, step.noise, step.data, **broken)
    assert step.model.training
    assert all(torch.equal(step.noise.state(r), before[0][r]) for r in range(2))
    assert torch.is_grad_enabled()


# --- the probe -------------------------------------------------------------------------------------------------------


class Latent(Fake):
    """No classifier: its latent is x where x is given, else w, which says nothing."""

    completions: ClassVar = ("encoders",)
    has_classifier: ClassVar = False

    def encode(self, x: Mapping[str, Tensor]) -> DiagonalNormal:
        mean = x["x"] if "x" in x else x["w"]
        return DiagonalNormal(mean, torch.ones_like(mean), self.noise)


def separable(classes: int, scale: float = 1.0) -> Resident:
    """Two replicas that take the classes in opposite orders: x is 1 in the class's own column."""
    rows = 40 * classes
    corner = np.arange(rows) % classes
    rng = np.random.default_rng(0)
    x = scale * (np.eye(classes)[corner] + 0.05 * rng.standard_normal((rows, classes)))
    w = rng.random((rows, classes))
    features = {name: torch.from_numpy(np.concatenate([v, v]).astype(np.float32)) for name, v in (("x", x), ("w", w))}
    label = torch.from_numpy(np.concatenate([corner, classes - 1 - corner]))
    modalities = (Modality("x", classes, "gaussian"), Modality("w", classes, "nonnegative"))
    names = tuple(map(str, range(classes)))
    half = rows // 2
    examples = [Examples(np.arange(o, o + half), np.arange(0), np.arange(o + half, o + rows), ()) for o in (0, rows)]
    return Resident(features, {}, label, torch.arange(len(label)), modalities, names, tuple(examples))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_probe_learns_each_replicas_own_labels(classes: int) -> None:
    data, noise = separable(classes), Noise([0, 1])
    for replica in evaluate(Latent(noise), noise, data, iterations=1, samples=0, bound=False):
        by = {s.given: s for s in replica.scores}
        assert by["x"].accuracy == by["x+w"].accuracy == 1
        assert by["x"].nll < 0.3
        assert by["w"].accuracy < 0.8
        assert by["w"].nll > 0.5 * math.log(classes)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns_logistic_regression(classes: int) -> None:
    data, noise = separable(classes), Noise([0, 1])
    replicas = evaluate(Latent(noise), noise, data, iterations=1, samples=0, bound=False)
    for examples, replica in zip(data.examples, replicas, strict=True):
        by = {s.given: s for s in replica.scores}
        x, label = data.features["w"].numpy(), data.label.numpy()
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        regression.fit(x[examples.labelled], label[examples.labelled])
        p = regression.predict_proba(x[examples.test])
        assert by["w"].nll == pytest.approx(log_loss(label[examples.test], p), rel=1e-5)
        assert by["w"].accuracy == accuracy_score(label[examples.test], p.argmax(-1))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_of_latents_far_from_any_seen(classes: int) -> None:
    """Where a class's probability underflows, its logarithm is still a number."""
    data, noise = separable(classes), Noise([0, 1])
    for examples in data.examples:
        data.features["x"][examples.test] *= -1e4
    for replica in evaluate(Latent(noise), noise, data, iterations=1, samples=0, bound=False):
        by = {s.given: s for s in replica.scores}
        assert by["x"].nll > 1000
        assert math.isfinite(by["x"].nll)


def test_the_probe_learns_from_rows_that_have_what_it_is_given() -> None:
    """Rows that lack x say nothing about x; of class 2, which has no others, they must do."""
    data, noise = separable(3), Noise([0, 1])
    there = torch.rand(len(data.label), generator=torch.Generator().manual_seed(0)) < 0.5
    there &= data.label != 2
    for examples in data.examples:
        there[examples.test] = True
    holes = {"x": torch.where(there[:, None], data.features["x"], 0), "w": data.features["w"]}
    data = replace(data, features=holes, present={"x": there})
    replicas = evaluate(Latent(noise), noise, data, iterations=1, samples=0, bound=False)
    for examples, replica in zip(data.examples, replicas, strict=True):
        by, rows = {s.given: s for s in replica.scores}, examples.labelled
        rows = rows[(there[rows] | (data.label[rows] == 2)).numpy()]
        x, label = data.features["x"].numpy(), data.label.numpy()
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(x[rows], label[rows])
        p = regression.predict_proba(x[examples.test])
        assert by["x"].nll == pytest.approx(log_loss(label[examples.test], p), rel=1e-5)


def test_a_probe_is_too_slow_for_every_epoch() -> None:
    data, noise = separable(2), Noise([0, 1])
    for replica in evaluate(Latent(noise), noise, data, iterations=1, samples=0, bound=False, fast=True):
        assert replica.scores == ()


# --- several encoders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_pool_of_encoders_is_nearest_to_them_all(count: int) -> None:
    """The minimiser over normal q of sum_m KL(q || q_m), found numerically."""
    g = torch.Generator().manual_seed(count)
    noise = Noise([0])
    encoders = [
        DiagonalNormal(torch.randn(1, 1, 1, generator=g), 0.2 + torch.rand(1, 1, 1, generator=g), noise)
        for _ in range(count)
    ]
    means = np.array([float(q.mean) for q in encoders])
    variances = np.array([float(q.variance) for q in encoders])

    def divergence(q: np.ndarray) -> float:
        mean, log_variance = q
        ratio = np.exp(log_variance) / variances
        return float(0.5 * (ratio + (mean - means) ** 2 / variances - 1 - np.log(ratio)).sum())

    nearest = minimize(divergence, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    assert nearest.success
    pooled = pool({}, {str(m): q for m, q in enumerate(encoders)}, "geometric")
    assert float(pooled.mean) == pytest.approx(nearest.x[0], abs=1e-5)
    assert float(pooled.variance) == pytest.approx(math.exp(nearest.x[1]), rel=1e-5)


def test_after_an_epoch_few_subsets_of_many_modalities_are_scored(tmp_path: Path) -> None:
    modalities = (X, W, V, Modality("u", 2, "gaussian"))
    shard = make_shard(tmp_path / "shard.h5", modalities)
    step = make_step([make_settings("sshmvae-kl", shard)], shard)

    def given(fast: bool) -> list[str]:
        (result,) = evaluate(step.model, step.noise, step.data, iterations=1, samples=0, bound=False, fast=fast)
        return [score.given for score in result.scores]

    assert given(fast=True) == ["x", "w", "v", "u", "x+w+v", "x+w+u", "x+v+u", "w+v+u", "x+w+v+u"]
    assert len(given(fast=False)) == 15
