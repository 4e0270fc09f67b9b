"""Densities against scipy.stats, samples against their distributions, labels, shapes and float32."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality
from trainer.models.factory import Factory
from trainer.nn.distributions import (
    BernoulliPixels,
    Categorical,
    DiagonalNormal,
    Gaussian,
    PerModality,
    Pixels,
    RelaxedLabel,
    SoftplusSquaredError,
    SquaredError,
    standard_normal_log_prob,
)
from trainer.nn.labels import LabelPrior, LabelRule, one_hot
from trainer.nn.notation import parse
from trainer.nn.rng import Noise

R, B, K, D = 2, 5, 3, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise(replicas: int = R) -> Noise:
    return Noise(list(range(replicas)))


# Densities


@pytest.mark.parametrize("lead", [(R, B), (K, R, B)])
def test_diagonal_normal_density_is_scipys(lead: tuple[int, ...]) -> None:
    mean, variance, v = normal(*lead, D), normal(*lead, D, seed=1).exp(), normal(*lead, D, seed=2)
    q = DiagonalNormal(mean, variance, noise())
    expected = stats.norm(mean.double(), variance.double().sqrt()).logpdf(v.double()).sum(-1)
    assert q.log_prob(v).shape == lead
    np.testing.assert_allclose(q.log_prob(v), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.variance, variance)


def test_a_value_without_the_class_axis_meets_parameters_with_it() -> None:
    mean, variance, v = normal(K, R, B, D), normal(K, R, B, D, seed=1).exp(), normal(R, B, D, seed=2)
    log_p = DiagonalNormal(mean, variance, noise()).log_prob(v)
    assert log_p.shape == (K, R, B)
    for k in range(K):
        torch.testing.assert_close(log_p[k], DiagonalNormal(mean[k], variance[k], noise()).log_prob(v))
    for kind in (lambda p: Pixels(p, noise()), SquaredError):
        log_p = kind(mean).log_prob(v.sigmoid())
        for k in range(K):
            torch.testing.assert_close(log_p[k], kind(mean[k]).log_prob(v.sigmoid()))


def test_standard_normal_density_is_scipys() -> None:
    z = normal(K, R, B, D)
    expected = stats.norm.logpdf(z.double()).sum(-1)
    np.testing.assert_allclose(standard_normal_log_prob(z), expected, rtol=1e-5, atol=1e-5)


def test_pixels_of_bits_are_scipys_bernoulli_and_of_grey_values_the_cross_entropy() -> None:
    logits, v = normal(R, B, D), normal(R, B, D, seed=1)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    bits = (v > 0).float()
    expected = stats.bernoulli(p).logpmf(bits.numpy()).sum(-1)
    np.testing.assert_allclose(Pixels(logits, noise()).log_prob(bits), expected, rtol=1e-4, atol=1e-5)
    grey = v.sigmoid()
    expected = (grey.numpy() * np.log(p) + (1 - grey.numpy()) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(Pixels(logits, noise()).log_prob(grey), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Pixels(logits, noise()).mean, p, rtol=1e-5)


def test_pixels_stay_finite_where_the_sigmoid_is_0_or_1() -> None:
    logits = torch.tensor([[[-300.0, 300.0]]])
    assert Pixels(logits, noise(1)).log_prob(torch.tensor([[[0.0, 1.0]]])).item() == 0
    assert Pixels(logits, noise(1)).log_prob(torch.tensor([[[1.0, 0.0]]])).item() == -600


def test_squared_error_is_a_normal_of_variance_one_half_less_its_constant() -> None:
    mean, v = normal(R, B, D), normal(R, B, D, seed=1)
    log_p = SquaredError(mean).log_prob(v)
    np.testing.assert_allclose(log_p, -((v - mean) ** 2).sum(-1), rtol=1e-5)
    scipys = stats.norm(mean.double(), math.sqrt(0.5)).logpdf(v.double()).sum(-1)
    np.testing.assert_allclose(log_p.double() - 0.5 * D * math.log(math.pi), scipys, rtol=1e-4, atol=1e-5)
    assert torch.equal(SquaredError(mean).sample(), mean)


def test_the_uniform_label_has_minus_log_k_relaxed_or_not_and_sums_to_one() -> None:
    labels = torch.eye(K)
    np.testing.assert_allclose(LabelPrior().log_prob(labels), -math.log(K), rtol=1e-6)
    assert LabelPrior().log_prob(labels).exp().sum().item() == pytest.approx(1)
    relaxed = normal(K, R, B, K).softmax(-1)
    np.testing.assert_allclose(LabelPrior().log_prob(relaxed), np.full((K, R, B), -math.log(K)), rtol=1e-5)
    assert LabelPrior().log_prob(torch.eye(51)[0]).item() == pytest.approx(-math.log(51))


# The relaxed label


def test_the_labels_log_prob_is_the_cross_term() -> None:
    logits, y = 3 * normal(R, B, K), normal(R, B, K, seed=1).softmax(-1)
    log_q = logits.double().numpy() - np.log(np.exp(logits.double().numpy()).sum(-1, keepdims=True))
    q = RelaxedLabel(logits, noise())
    np.testing.assert_allclose(q.log_prob(y), (y.double().numpy() * log_q).sum(-1), rtol=1e-4, atol=1e-5)
    index = torch.arange(B).expand(R, B) % K
    expected = stats.multinomial(1, np.exp(log_q)).logpmf(np.eye(K)[index])
    np.testing.assert_allclose(q.log_prob(one_hot(index, K)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q.negative_entropy(), -stats.entropy(np.exp(log_q), axis=-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q.logits, log_q, rtol=1e-4, atol=1e-5)
    total = sum(q.log_prob(torch.eye(K)[k].expand(R, B, K)).exp() for k in range(K))
    torch.testing.assert_close(total, torch.ones(R, B))


def test_relaxed_labels_are_on_the_simplex_and_tend_to_one_hot() -> None:
    sharpness = []
    for temperature in (2.0, 0.5, 0.1, 0.01):
        y = RelaxedLabel(normal(1, 1, K).expand(R, 4000, K), noise()).relaxed(temperature)
        assert (y >= 0).all()
        torch.testing.assert_close(y.sum(-1), torch.ones(R, 4000))
        sharpness.append(float(y.amax(-1).mean()))
    assert sharpness == sorted(sharpness)
    assert sharpness[0] < 0.7
    assert sharpness[-1] > 0.99


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_argmax_of_relaxed_labels_follows_q(temperature: float) -> None:
    """The Gumbel-max property, whatever the temperature."""
    logits, count = torch.tensor([1.0, -0.5, 0.3, -2.0]), 20_000
    y = RelaxedLabel(logits.expand(R, count, 4), noise()).relaxed(temperature)
    for r in range(R):
        observed = np.bincount(y[r].argmax(-1), minlength=4)
        assert stats.chisquare(observed, count * logits.double().softmax(0).numpy()).pvalue > 1e-4


def test_relaxed_labels_have_a_gradient_in_q() -> None:
    logits = normal(R, B, K).requires_grad_()
    RelaxedLabel(logits, noise()).relaxed(0.5)[..., 0].sum().backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(-1) > 0).all()


# Label rules


def test_an_observed_label_is_taken_as_it_is() -> None:
    q, y = RelaxedLabel(normal(R, B, K), noise()), one_hot(torch.arange(B).expand(R, B) % K, K)
    for mode in ("exact", "gumbel"):
        label = LabelRule(mode)(q, y)
        assert label.y is y
        assert label.weights is None
        assert (label.log_q == 0).all()
        torch.testing.assert_close(label.log_likelihood, q.log_prob(y))
        assert label.mean(y[..., 0]) is not None


def test_the_exact_sum_has_every_class_on_a_leading_axis_weighed_by_q() -> None:
    q = RelaxedLabel(normal(R, B, K), noise())
    label = LabelRule("exact")(q, None)
    assert label.y.shape == (K, R, B, K)
    for k in range(K):
        assert (label.y[k] == torch.eye(K)[k]).all()
    term = normal(K, R, B, seed=1)
    expected = sum(q.probs[..., k] * term[k] for k in range(K))
    torch.testing.assert_close(label.mean(term), expected)
    torch.testing.assert_close(label.log_q, q.negative_entropy())
    assert label.log_likelihood is None


def test_the_relaxed_rule_draws_one_label_at_its_temperature() -> None:
    logits = normal(R, B, K)
    drawn = LabelRule("gumbel", 0.3)(RelaxedLabel(logits, noise()), None)
    q = RelaxedLabel(logits, noise())  # the same seeds
    torch.testing.assert_close(drawn.y, q.relaxed(0.3))
    torch.testing.assert_close(drawn.log_q, q.log_prob(drawn.y))
    term = normal(R, B, seed=1)
    assert drawn.mean(term) is term
    assert LabelRule().temperature == 0.1


# Samples


def test_normal_samples_are_normal_and_differentiable() -> None:
    mean, variance = torch.tensor([1.5, -2.0]).requires_grad_(), torch.tensor([0.3, 4.0]).requires_grad_()
    q = DiagonalNormal(mean.expand(R, 5000, 2), variance.expand(R, 5000, 2), noise())
    sample = q.rsample()
    for r in range(R):
        for d in range(2):
            cdf = stats.norm(mean[d].item(), math.sqrt(variance[d].item())).cdf
            assert stats.kstest(sample[r, :, d].detach().numpy(), cdf).pvalue > 1e-4
    sample.sum().backward()
    assert mean.grad is not None
    np.testing.assert_allclose(mean.grad, 5000.0 * R)  # d sample / d mean = 1
    assert (variance.grad != 0).all()
    assert not q.sample().requires_grad


def test_pixel_samples_are_bits_of_their_mean() -> None:
    logits = torch.tensor([2.0, -1.0, 0.0])
    bits = Pixels(logits.expand(R, 20_000, 3), noise()).sample()
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    p = logits.sigmoid()
    error = (bits.mean(1) - p).abs() / (p * (1 - p) / 20_000).sqrt()
    assert (error < 5).all()


@pytest.mark.parametrize(
    ("kind", "cdf"),
    [("normal", stats.norm.cdf), ("uniform", stats.uniform.cdf), ("gumbel", stats.gumbel_r.cdf)],
)
@pytest.mark.parametrize("lead", [(), (K,)])
def test_noise_is_what_it_is_called(kind: str, cdf: Any, lead: tuple[int, ...]) -> None:
    sample = getattr(noise(), kind)((*lead, R, 2000, 2))
    assert sample.shape == (*lead, R, 2000, 2)
    for r in range(R):
        assert stats.kstest(sample[..., r, :, :].flatten().numpy(), cdf).pvalue > 1e-4
    first, second = (sample[..., r, :, :].flatten().numpy() for r in range(R))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(len(first))


def test_a_replicas_noise_is_its_seeds_alone() -> None:
    for kind in ("normal", "uniform", "gumbel"):
        for lead in ((), (K,)):
            together = getattr(Noise([7, 3, 9]), kind)((*lead, 3, B, D))
            alone = getattr(Noise([3]), kind)((*lead, 1, B, D))
            torch.testing.assert_close(together[..., 1, :, :], alone[..., 0, :, :], rtol=0, atol=0)


def test_noise_apart_leaves_the_usual_streams_alone() -> None:
    first, second = noise(), noise()
    with first.separate_streams("something else"):
        aside = first.normal((R, B, D))
    with second.separate_streams("something else"):
        torch.testing.assert_close(second.normal((R, B, D)), aside)
    usual = first.normal((R, B, D))
    torch.testing.assert_close(usual, noise().normal((R, B, D)))
    assert (usual != aside).all()


def test_noise_goes_on_from_a_saved_state() -> None:
    stream = noise()
    stream.normal((R, B, D))
    states = [stream.state(r) for r in range(R)]
    ahead = stream.gumbel((R, B, D))
    for r, state in enumerate(states):
        stream.set_state(r, state)
    assert torch.equal(stream.gumbel((R, B, D)), ahead)


# Conditionals: what a network's outputs mean

WIDTHS = {"keys": 2, "rgb.left": 3, "z": 2, "y": K}


def given(*names: str, lead: tuple[int, ...] = (R, B)) -> dict[str, Tensor]:
    return {name: normal(*lead, WIDTHS[name], seed=i) for i, name in enumerate(names)}


def raw(conditional: nn.Module, v: dict[str, Tensor]) -> list[Tensor]:
    return [t.double() for t in conditional.parameters_of(v)]


def test_each_conditional_gives_its_outputs_their_meaning() -> None:
    v = given("z", "y")
    notation = parse("(z, y)-D4BR, D3")
    gaussian = Gaussian("q", notation, WIDTHS, noise())
    mean, variance = raw(gaussian, v)
    torch.testing.assert_close(gaussian(**v).mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gaussian(**v).variance.double(), torch.log1p(variance.exp()), rtol=1e-4, atol=1e-5)
    pixels = BernoulliPixels("p", notation, WIDTHS, noise())
    torch.testing.assert_close(pixels(**v).mean.double(), 1 / (1 + (-raw(pixels, v)[0]).exp()), rtol=1e-5, atol=1e-6)
    softplus = SoftplusSquaredError("p", notation, WIDTHS, noise())
    assert (softplus(**v).mean > 0).all()
    torch.testing.assert_close(
        softplus(**v).mean.double(), torch.log1p(raw(softplus, v)[0].exp()), rtol=1e-5, atol=1e-6
    )
    categorical = Categorical("q", notation, WIDTHS, noise())
    torch.testing.assert_close(
        categorical(**v).probs.double(), raw(categorical, v)[0].softmax(-1), rtol=1e-5, atol=1e-6
    )


def test_a_variance_never_underflows_to_zero() -> None:
    gaussian = Gaussian("q", parse("z, D2"), WIDTHS, noise())
    with torch.no_grad():
        gaussian.heads[1].bias.fill_(-1000.0)
    q = gaussian(z=torch.zeros(R, B, 2))
    assert (q.variance > 0).all()
    assert q.log_prob(q.mean).isfinite().all()


@pytest.mark.parametrize("kind", [Gaussian, BernoulliPixels, SoftplusSquaredError, Categorical])
@pytest.mark.parametrize("training", [True, False])
def test_with_bfloat16_networks_the_densities_are_float32(
    kind: type[Gaussian | BernoulliPixels | SoftplusSquaredError | Categorical], training: bool
) -> None:
    conditional = kind("p", parse("(z, y)-D4BR-D4BR, D3"), WIDTHS, noise()).train(training)
    seen: list[torch.dtype] = []
    conditional.heads[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        distribution = conditional(**given("z", "y"))
        value = distribution.mean.detach().clone()
        assert distribution.log_prob(value).dtype == torch.float32
    assert seen == [torch.bfloat16]
    assert distribution.mean.dtype == torch.float32


def test_bfloat16_values_too_give_float32_densities() -> None:
    mean, variance = normal(R, B, D), normal(R, B, D, seed=1).exp()
    v = normal(R, B, D, seed=2).sigmoid().bfloat16()
    for distribution in (DiagonalNormal(mean, variance, noise()), SquaredError(mean), Pixels(mean, noise())):
        assert distribution.log_prob(v).dtype == torch.float32


@pytest.mark.parametrize("kind", [Gaussian, BernoulliPixels, SoftplusSquaredError])
def test_a_condition_with_the_class_axis_gives_parameters_with_it(
    kind: type[Gaussian | BernoulliPixels | SoftplusSquaredError],
) -> None:
    """The same as class after class, beside a condition without the axis."""
    conditional = kind("p", parse("(z-D2BR, y)-D4BR, D3"), WIDTHS, noise()).eval()
    z, y = normal(R, B, 2), torch.eye(K)[:, None, None].expand(K, R, B, K)
    together = conditional(z=z, y=y).mean
    assert together.shape == (K, R, B, 3)
    for k in range(K):
        torch.testing.assert_close(together[k], conditional(z=z, y=y[k]).mean)


# Modalities and the factory


def modalities() -> tuple[Modality, ...]:
    return Modality("keys", 2, "bernoulli"), Modality("rgb.left", 3, "gaussian"), Modality("my depth", 1, "nonnegative")


def factory(**networks: str) -> Factory:
    written = {name.replace("_", "|", 1).replace("_", ","): text for name, text in networks.items()}
    return Factory({f"{n[0]}({n[1:]})": t for n, t in written.items()}, modalities(), K, noise(), LabelRule())


def test_each_modality_has_an_observation_of_its_own_kind_by_its_own_name() -> None:
    make = factory(qz_X="(X-D3BR), D2", px_z="z-D3BR, Dx")
    p_x = make.observations("p(x|z)")
    assert isinstance(p_x, PerModality)
    kinds = {m: type(conditional) for m, conditional in p_x.items()}
    assert kinds == {"keys": BernoulliPixels, "rgb.left": Gaussian, "my depth": SoftplusSquaredError}
    x = {m.name: normal(R, B, m.width).sigmoid() for m in modalities()}
    terms = p_x.log_prob(x, z=normal(R, B, 2))
    assert {name: term.shape for name, term in terms.items()} == {
        "p(keys|z)": (R, B),
        "p(rgb.left|z)": (R, B),
        "p(my depth|z)": (R, B),
    }
    assert p_x["rgb.left"].name == "p(rgb.left|z)"
    assert make.gaussian("q(z|X)").name == "q(z|keys,rgb.left,my depth)"
    assert make.gaussian("q(z|X)")(**x).mean.shape == (R, B, 2)


def test_the_factory_knows_every_variables_width() -> None:
    make = factory(qa_X="(X-D3BR), D4", qz_a_y="(a, y), D2")
    assert make.widths == {"keys": 2, "rgb.left": 3, "my depth": 1, "y": K, "a": 4, "z": 2}


def test_networks_that_disagree_about_a_width_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"q\(z\|a\) has 3 units, but z has 2"):
        factory(qz_X="X, D2", qz_a="a, D3").widths  # noqa: B018
    with pytest.raises(UsageError, match=r"p\(x\|z\).*ends in 5 units, not 2"):
        factory(qz_X="(X), D2", px_z="z, D5").observations("p(x|z)")
    with pytest.raises(UsageError, match="names the input 'b'"):
        factory(qz_X="(X, b), D2").gaussian("q(z|X)")


def test_modalities_of_one_kind_are_joined_and_of_several_are_not() -> None:
    alike = Factory({}, (Modality("u", 2, "gaussian"), Modality("v", 5, "gaussian")), K, noise(), LabelRule())
    assert alike.concatenated().modalities == (Modality("x", 7, "gaussian"),)
    with pytest.raises(UsageError, match="bernoulli, gaussian, nonnegative"):
        factory().concatenated()
