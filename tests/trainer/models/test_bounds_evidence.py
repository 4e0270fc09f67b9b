"""Bounds are below the evidence, and equal to it at the true posterior; the relaxed one tends to the exact one."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from pipeline.shards.shard import Modality
from tests.support.oracles import Oracle, every_class, on_grid, relaxed_on_grid
from tests.support.tiny_models import ALL_MODELS, CLASSES, UNLABELLED_MODELS, tiny


@pytest.mark.parametrize("name", ALL_MODELS)
def test_the_bound_is_below_the_evidence(name: str) -> None:
    """log p(x) and log p(x, y) by enumeration of the generative model; bounds by quadrature and by sampling."""
    batch, copies = 4, 4000
    subject = tiny(name)
    x, y = subject.x(batch), subject.y(batch)
    oracle = Oracle(subject, x)
    rules = {"a": on_grid(41), "z": on_grid(41), "y": every_class}
    evidence = oracle.log_evidence(61)
    assert (oracle.value(oracle.points(rules)) < evidence).all()
    with torch.no_grad():
        draws = subject.model.bound(subject.x(batch, copies=copies)).value
    assert_mean_below(draws, evidence, copies)
    if name in UNLABELLED_MODELS:
        return
    joint = oracle.log_evidence(61, y.double().numpy())
    assert (joint < evidence).all()
    with torch.no_grad():
        draws = subject.model.bound(subject.x(batch, copies=copies), subject.y(batch, copies=copies)).value
    assert_mean_below(draws, joint, copies)


def assert_mean_below(draws: Tensor, evidence: np.ndarray, copies: int) -> None:
    replicas = len(draws)
    grouped = draws.double().numpy().reshape(replicas, -1, copies)
    assert (grouped.mean(-1) < evidence + 5.5 * grouped.std(-1) / math.sqrt(copies)).all()


def set_linear(layer: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """One replica's linear layer: `weight` is `[in, out]`."""
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float32)[None])
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float32)[None])


def set_constant_variance(head: nn.Module, variance: np.ndarray) -> None:
    set_linear(head, np.zeros(head.weight.shape[1:]), np.log(np.expm1(variance)))


# Linear decoders of a one-dimensional latent u: x = loading u + offset + noise, so that every posterior is known.
LOADING = np.array([0.8, -0.5, 0.3])  # two values of x, one of w
VARIANCE = np.array([0.4, 0.9, 0.6])
OFFSET = np.array([0.2, -0.1, 0.5])
BY_CLASS = np.array([[0.0, 1.0, -0.7], [0.9, -0.4, 0.2], [-1.1, 0.3, 0.6]])  # what a class adds to the offset
LINEAR = (Modality("x", 2, "gaussian"), Modality("w", 1, "gaussian"))
COVARIANCE = np.outer(LOADING, LOADING) + np.diag(VARIANCE)
PRECISION = 1 + (LOADING**2 / VARIANCE).sum()
GAIN = LOADING / VARIANCE / PRECISION  # the posterior mean of u is GAIN . (x - offset)


def linear_example(batch: int = 7) -> tuple[dict[str, Tensor], np.ndarray]:
    v = np.random.default_rng(3).normal(size=(batch, 3))
    both = torch.tensor(v, dtype=torch.float32)[None]
    return {"x": both[..., :2], "w": both[..., 2:]}, v


def set_decoders(p_x: nn.Module, rows: np.ndarray, offset: np.ndarray) -> None:
    for m, columns in (("x", slice(0, 2)), ("w", slice(2, 3))):
        mean, variance = p_x[m].heads
        set_linear(mean, rows[:, columns], offset[columns])
        set_constant_variance(variance, VARIANCE[columns])


def test_jmvae_with_its_true_posterior_is_the_evidence_in_every_draw() -> None:
    subject = tiny("jmvae", replicas=1, modalities=LINEAR, written={"q(z|X)": "(X), D1", "p(x|z)": "z, Dx"})
    set_decoders(subject.model.p_x, LOADING[None], OFFSET)
    set_linear(subject.model.q_z.heads[0], GAIN[:, None], -np.array([GAIN @ OFFSET]))
    set_constant_variance(subject.model.q_z.heads[1], np.array([1 / PRECISION]))
    x, v = linear_example()
    expected = multivariate_normal(OFFSET, COVARIANCE).logpdf(v)
    for _ in range(3):
        np.testing.assert_allclose(subject.model.bound(x).value[0].detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ssmvae", "m2"])
def test_ssmvae_and_m2_with_their_true_posteriors_are_the_evidence_in_every_draw(name: str) -> None:
    """Classes that shift the offset: q(z|X,y) is linear, and q(y|X) is linear discriminant analysis."""
    written = {"q(y|X)": "(X), DK", "q(z|X,y)": "(X, y), D1", "p(x|z,y)": "(z, y), Dx"}
    subject = tiny(name, replicas=1, modalities=LINEAR, written=written)
    rows = np.concatenate([LOADING[None], BY_CLASS])
    if name == "m2":
        mean, variance = subject.model.p_x.heads
        set_linear(mean, rows, OFFSET)
        set_constant_variance(variance, VARIANCE)
    else:
        set_decoders(subject.model.p_x, rows, OFFSET)
    means = OFFSET + BY_CLASS
    set_linear(
        subject.model.q_z.heads[0],
        np.concatenate([GAIN[:, None], -BY_CLASS @ GAIN[:, None]]),
        -np.array([GAIN @ OFFSET]),
    )
    set_constant_variance(subject.model.q_z.heads[1], np.array([1 / PRECISION]))
    inverse = np.linalg.inv(COVARIANCE)
    set_linear(subject.model.q_y.heads[0], inverse @ means.T, -0.5 * np.einsum("ki,ij,kj->k", means, inverse, means))
    x, v = linear_example()
    by_class = np.stack([multivariate_normal(mean, COVARIANCE).logpdf(v) for mean in means]) - math.log(CLASSES)
    np.testing.assert_allclose(
        subject.model.bound(x).value[0].detach(), np.logaddexp.reduce(by_class), rtol=1e-4, atol=1e-4
    )
    for k in range(CLASSES):
        y = torch.eye(CLASSES)[k].expand(1, len(v), CLASSES)
        bound = subject.model.bound(x, y)
        np.testing.assert_allclose(bound.value[0].detach(), by_class[k], rtol=1e-4, atol=1e-4)
        assert bound.log_q_y is not None
        posterior = by_class[k] - np.logaddexp.reduce(by_class)
        np.testing.assert_allclose(bound.log_q_y[0].detach(), posterior, rtol=1e-4, atol=1e-4)


def test_sshmvae_with_its_true_posteriors_is_the_evidence_in_every_draw() -> None:
    """a = 0.6 z + 0.3 + noise whatever the class: q(a|X) and q(z|a,y) are linear, and q(y|a) is uniform."""
    slope, offset, variance = 0.6, 0.3, 0.5
    written = {
        "q(a|X)": "(X), D1",
        "q(y|a)": "a, DK",
        "q(z|a,y)": "(a, y), D1",
        "p(a|z,y)": "(z, y), D1",
        "p(x|a)": "a, Dx",
    }
    model = tiny("sshmvae", replicas=1, modalities=LINEAR, written=written).model
    prior = slope**2 + variance  # of a, around its offset
    set_decoders(model.p_x, LOADING[None], OFFSET)
    set_linear(model.p_a.heads[0], np.array([[slope], [0], [0], [0]]), np.array([offset]))
    set_constant_variance(model.p_a.heads[1], np.array([variance]))
    precision = 1 / prior + (LOADING**2 / VARIANCE).sum()
    gain = LOADING / VARIANCE / precision
    set_linear(model.q_a.heads[0], gain[:, None], np.array([offset / prior / precision - gain @ OFFSET]))
    set_constant_variance(model.q_a.heads[1], np.array([1 / precision]))
    of_z = slope / variance / (1 + slope**2 / variance)
    set_linear(model.q_z.heads[0], np.array([[of_z], [0], [0], [0]]), np.array([-of_z * offset]))
    set_constant_variance(model.q_z.heads[1], np.array([1 / (1 + slope**2 / variance)]))
    set_linear(model.q_y.heads[0], np.zeros((1, 3)), np.zeros(3))
    x, v = linear_example()
    covariance = prior * np.outer(LOADING, LOADING) + np.diag(VARIANCE)
    expected = multivariate_normal(OFFSET + offset * LOADING, covariance).logpdf(v)
    np.testing.assert_allclose(model.bound(x).value[0].detach(), expected, rtol=1e-4, atol=1e-4)
    y = torch.eye(CLASSES)[1].expand(1, len(v), CLASSES)
    np.testing.assert_allclose(model.bound(x, y).value[0].detach(), expected - math.log(CLASSES), rtol=1e-4, atol=1e-4)


# The relaxed label and the exact sum


@pytest.mark.parametrize(  # seeds whose bounds vary little, so that this many draws tell the temperatures apart
    ("name", "seed"), [("m2", 0), ("sdgm", 4), ("ssmvae", 2), ("sshmvae", 5), ("sshmvae-kl", 2)]
)
def test_the_relaxed_bound_nears_the_exact_one_as_the_temperature_falls(name: str, seed: int) -> None:
    copies, temperatures = 60_000, (1.0, 0.3, 0.1, 0.02)
    errors = []
    for temperature in temperatures:
        subject = tiny(name, label="gumbel", temperature=temperature, replicas=1, seed=seed)  # the same noise
        with torch.no_grad():
            draws = subject.model.bound(subject.x(1, copies=copies)).value[0].double().numpy()
        oracle = Oracle(subject, subject.x(1))
        exact = float(oracle.value(oracle.points({"a": on_grid(41), "z": on_grid(41), "y": every_class}))[0, 0])
        errors.append(abs(draws.mean() - exact))
    allowed = 5.5 * draws.std() / math.sqrt(copies) + 1e-3
    assert errors[-1] < allowed + 0.02 * errors[0]
    assert errors[0] > 3 * allowed, "the coldest would be right by chance"
    assert errors[0] > errors[1] > errors[-1]


def test_the_relaxation_error_by_quadrature_falls_with_the_temperature() -> None:
    subject = tiny("ssmvae", replicas=1)
    oracle = Oracle(subject, subject.x(1))
    exact = oracle.value(oracle.points({"z": on_grid(31), "y": every_class}))
    errors = [
        np.abs(oracle.value(oracle.points({"z": on_grid(31), "y": relaxed_on_grid(t, 50)})) - exact).max()
        for t in (1.0, 0.5, 0.25)
    ]
    assert errors[0] > errors[1] > errors[2] > 0
