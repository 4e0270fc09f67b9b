"""What is true of the bounds as a whole: eqs. 10 and 12, labels, precision, and what classifies."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.shards.shard import Modality
from tests.support.tiny_models import (
    ALL_MODELS,
    CLASSES,
    KL_MODELS,
    LABELLED_MODELS,
    UNLABELLED_MODELS,
    Tiny,
    conditionals,
    replay,
    tiny,
)
from trainer.models.bound import average_classifier
from trainer.models.posterior import pool
from trainer.models.registry import cards

# Eq. 10


@pytest.mark.parametrize("label", ["exact", "gumbel"])
def test_eq_10_sshmvae_is_m2_of_the_fused_variable(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U of SS-HMVAE = M2's bound with a as the observation + log p(x|a) + log p(w|a) - log q(a|x,w), draw by draw."""
    batch, dims = 6, 2
    upper = tiny("sshmvae", label=label, a=dims, z=2)
    m2 = tiny(
        "m2",
        label=label,
        modalities=[Modality("a", dims, "gaussian")],
        written={"q(y|X)": "X-D3BR, DK", "q(z|X,y)": "(X-D2BR, y), D2", "p(x|z,y)": "(z, y)-D3BR, Dx"},
    )
    for of_m2, of_upper in (
        (m2.model.q_y, upper.model.q_y),
        (m2.model.q_z, upper.model.q_z),
        (m2.model.p_x, upper.model.p_a),
    ):
        of_m2.load_state_dict(of_upper.state_dict())
    g = torch.Generator().manual_seed(5)
    eps_a = torch.randn(2, batch, dims, generator=g)
    eps_z = torch.randn(*((CLASSES,) * (label == "exact")), 2, batch, 2, generator=g)
    gumbel = -torch.empty(2, batch, CLASSES).exponential_(generator=g).log()
    x = upper.x(batch)
    replay(upper, monkeypatch, normal=[eps_a, eps_z], gumbel=[gumbel])
    replay(m2, monkeypatch, normal=[eps_z], gumbel=[gumbel])
    with torch.no_grad():
        whole = upper.model.bound(x)
        q_a = upper.model.q_a(**x)
        a = q_a.mean + q_a.variance.sqrt() * eps_a
        inner = m2.model.bound({"a": a})
        log_x = sum(upper.model.p_x[m](a=a).log_prob(x[m]) for m in x)
        log_q_a = -0.5 * ((eps_a**2) + torch.log(2 * math.pi * q_a.variance)).sum(-1)
    torch.testing.assert_close(whole.value, inner.value + log_x - log_q_a, rtol=1e-4, atol=1e-4)


def test_eq_10_in_expectation_with_the_entropy_of_q_a() -> None:
    """U = E_q(a)[M2's bound of a] + E[log p(x|a)] + E[log p(w|a)] + H[q(a|x,w)], in plain loops."""
    subject = tiny("sshmvae", replicas=1)
    model, x = subject.model, subject.x(1)
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    weight = weight / weight.sum()
    expected = 0.0
    with torch.no_grad():
        mean, variance = (float(v) for v in (model.q_a(**x).mean, model.q_a(**x).variance))
        for node_a, weight_a in zip(node, weight, strict=True):
            a = torch.tensor([[[mean + math.sqrt(variance) * node_a]]], dtype=torch.float32)
            q_y = torch.softmax(model.q_y.parameters_of({"a": a})[0], -1).flatten().tolist()
            logit_x = model.p_x["x"].parameters_of({"a": a})[0]
            mean_w = torch.log1p(model.p_x["w"].parameters_of({"a": a})[0].exp())
            s = torch.sigmoid(logit_x)
            expected += weight_a * float((x["x"] * s.log() + (1 - x["x"]) * (1 - s).log()).sum())
            expected -= weight_a * float(((x["w"] - mean_w) ** 2).sum())
            for k in range(CLASSES):
                y = torch.eye(CLASSES)[k].reshape(1, 1, CLASSES)
                q_z = model.q_z(a=a, y=y)
                expected -= weight_a * q_y[k] * (math.log(q_y[k]) + math.log(CLASSES))
                z = q_z.mean + q_z.variance.sqrt() * torch.tensor(node, dtype=torch.float32).reshape(1, -1, 1)
                p_a = model.p_a(z=z, y=y.expand(1, len(node), CLASSES))
                inner = (
                    -0.5 * (torch.log(2 * math.pi * p_a.variance) + (a - p_a.mean) ** 2 / p_a.variance)
                    - 0.5 * z**2
                    + 0.5 * torch.log(q_z.variance)
                    + 0.5 * torch.tensor(node**2).reshape(1, -1, 1)
                )
                expected += weight_a * q_y[k] * float((inner.flatten().double() * torch.tensor(weight)).sum())
        expected += 0.5 * math.log(2 * math.pi * math.e * variance)  # H[q(a|x,w)]
        copies = 40_000
        value = model.bound({m: v.repeat(1, copies, 1) for m, v in x.items()}).value.double()
    assert abs(float(value.mean()) - expected) < 5.5 * float(value.std()) / math.sqrt(copies) + 2e-3


# Eq. 12


@pytest.mark.parametrize("name", KL_MODELS)
def test_eq_12_is_the_kl_divergence_to_each_encoder(name: str) -> None:
    """In closed form by hand, and by Monte Carlo from the joint encoder's parameters alone."""
    subject = tiny(name, a=2, z=2)
    model, x = subject.model, subject.x(3)
    latent = "a" if name == "sshmvae-kl" else "z"
    rng = np.random.default_rng(0)
    with torch.no_grad():
        divergence = model.bound(x).divergence
        labelled = model.bound(x, subject.y(3)).divergence
        joint = getattr(model, f"q_{latent}")(**x)
        m_0, v_0 = joint.mean.double().numpy(), joint.variance.double().numpy()
        assert set(divergence) == {f"q({latent}|x)", f"q({latent}|w)"}
        for m in x:
            encoder = conditionals(model)[f"q({latent}|{m})"](**{m: x[m]})
            m_1, v_1 = encoder.mean.double().numpy(), encoder.variance.double().numpy()
            closed = 0.5 * (np.log(v_1 / v_0) + (v_0 + (m_0 - m_1) ** 2) / v_1 - 1).sum(-1)
            term = divergence[f"q({latent}|{m})"]
            np.testing.assert_allclose(term.numpy(), closed, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(labelled[f"q({latent}|{m})"], term)  # no label in it
            draws = m_0 + np.sqrt(v_0) * rng.standard_normal((20_000, *m_0.shape))
            ratio = -0.5 * (np.log(v_0) + (draws - m_0) ** 2 / v_0 - np.log(v_1) - (draws - m_1) ** 2 / v_1).sum(-1)
            error = np.abs(ratio.mean(0) - term.numpy())
            assert (error < 5.5 * ratio.std(0) / math.sqrt(len(ratio))).all()
            assert (term > 0).all()


def test_models_without_encoders_have_no_divergence() -> None:
    for name in set(ALL_MODELS) - set(KL_MODELS):
        subject = tiny(name)
        assert not subject.model.bound(subject.x(2)).divergence


def test_a_subset_of_encoders_is_pooled_into_the_q_nearest_to_all_of_them() -> None:
    """Perturbing the pool's mean or variance raises sum_m KL(q || q_m); one posterior alone stays what it is."""
    subject = tiny("sshmvae-kl", replicas=1, a=2)
    x = subject.x(3)
    with torch.no_grad():
        experts = subject.model.posterior.experts(x)
        several = list(experts.values())
        pooled = pool(x, experts, "geometric")

        def total(mean: Tensor, variance: Tensor) -> Tensor:
            kl = [(q.variance / variance).log() + (variance + (mean - q.mean) ** 2) / q.variance - 1 for q in several]
            return 0.5 * sum(kl)

        least = total(pooled.mean, pooled.variance)
        for shift in (-0.05, 0.05):
            assert (total(pooled.mean + shift, pooled.variance) > least).all()
            assert (total(pooled.mean, pooled.variance * (1 + shift)) > least).all()
        assert pool({"x": x["x"]}, {"x": several[0]}, "geometric") is several[0]


# Labels


@pytest.mark.parametrize("name", LABELLED_MODELS)
def test_another_label_makes_another_labelled_bound(name: str) -> None:
    subject = tiny(name)
    x, y = subject.x(4), subject.y(4)
    values = []
    for label in (y, y.roll(1, -1)):
        with torch.no_grad(), subject.noise.separate_streams("one draw"):
            bound = subject.model.bound(x, label)
        assert bound.log_q_y is not None
        values.append((bound.value, bound.log_q_y))
    for first, second in zip(*values, strict=True):
        assert ((first - second).abs() > 1e-4).all()


@pytest.mark.parametrize("name", UNLABELLED_MODELS)
def test_a_label_says_nothing_to_models_without_one(name: str) -> None:
    subject = tiny(name)
    values = []
    for y in (None, subject.y(4)):
        with torch.no_grad(), subject.noise.separate_streams("one draw"):
            bound = subject.model.bound(subject.x(4), y)
        assert bound.log_q_y is None
        values.append(bound.value)
    assert torch.equal(*values)


@pytest.mark.parametrize("name", LABELLED_MODELS)
def test_the_labelled_bound_of_each_class_averaged_by_q_is_the_exact_one_but_for_the_entropy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U = sum_k q(y=k|.) (L(x, y=k) - log q(y=k|.)), class by class, with the same noise."""
    batch = 4
    subject = tiny(name, z=2)
    x = subject.x(batch)
    g = torch.Generator().manual_seed(2)
    eps_a, eps_z = torch.randn(2, batch, 1, generator=g), torch.randn(CLASSES, 2, batch, 2, generator=g)
    has_a = hasattr(subject.model, "q_a")
    with torch.no_grad():
        replay(subject, monkeypatch, normal=[eps_a, eps_z] if has_a else [eps_z])
        exact = subject.model.bound(x).value
        total = torch.zeros(2, batch)
        for k in range(CLASSES):
            replay(subject, monkeypatch, normal=[eps_a, eps_z[k]] if has_a else [eps_z[k]])
            bound = subject.model.bound(x, torch.eye(CLASSES)[k].expand(2, batch, CLASSES))
            assert bound.log_q_y is not None
            total += bound.log_q_y.exp() * (bound.value - bound.log_q_y)
    torch.testing.assert_close(exact, total, rtol=1e-4, atol=1e-4)


# Precision, and what classifies


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_under_bfloat16_every_density_is_float32(name: str, mode: str) -> None:
    subject = tiny(name, label="gumbel", z=2)
    subject.model.train(mode == "training")
    with torch.autocast("cpu", torch.bfloat16):
        bound = subject.model.bound(subject.x(8))
        labelled = subject.model.bound(subject.x(8), subject.y(8)) if name in LABELLED_MODELS else bound
    for each in (bound, labelled):
        for term in (*each.log_p.values(), *each.log_q.values(), *each.divergence.values(), each.value):
            assert term.dtype == torch.float32
            assert term.isfinite().all()
    if name in LABELLED_MODELS:
        assert labelled.log_q_y is not None
        assert labelled.log_q_y.dtype == torch.float32


def classifier_at(subject: Tiny, x: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """log q(y|., a) from the linear layer's outputs."""
    given = x if subject.name == "sdgm" else {}
    return lambda a: torch.log_softmax(subject.model.q_y.parameters_of({**given, "a": a})[0], -1)


@pytest.mark.parametrize("name", ["sdgm", "sshmvae", "sshmvae-kl"])
def test_a_prediction_is_the_mean_of_the_classifier_over_q_a(name: str) -> None:
    subject = tiny(name)
    x = subject.x(3)
    with torch.no_grad():
        q_a = subject.model.q_a(**x)
        at = classifier_at(subject, x)
        torch.testing.assert_close(subject.model.classify(x), at(q_a.mean), rtol=1e-4, atol=1e-5)
        node = np.linspace(-6, 6, 81)
        weight = np.exp(-0.5 * node**2) / np.exp(-0.5 * node**2).sum()
        expected = sum(
            w * at(q_a.mean + q_a.variance.sqrt() * float(e)).exp().double() for e, w in zip(node, weight, strict=True)
        )
        sampled = subject.model.classify(x, samples=1000).exp()
    np.testing.assert_allclose(sampled.numpy(), expected.numpy(), atol=0.04)
    torch.testing.assert_close(sampled.sum(-1), torch.ones(2, 3), rtol=1e-4, atol=1e-4)


def test_an_average_over_points_is_that_of_the_probabilities_there() -> None:
    subject = tiny("sshmvae", replicas=1)
    q_a = subject.model.q_a(**subject.x(3))
    at = classifier_at(subject, {})
    for count in (1, 3):
        log_q = average_classifier(lambda a: subject.model.q_y(a=a), q_a, count)
        expected = sum(at(point).exp() for point in q_a.points(count)) / count
        torch.testing.assert_close(log_q.exp(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KL_MODELS)
def test_the_single_encoders_stand_in_for_a_missing_modality(name: str) -> None:
    subject = tiny(name)
    x = subject.x(3)
    latent = "a" if name == "sshmvae-kl" else "z"
    encoders = conditionals(subject.model)
    for given in (("x",), ("w",), ("x", "w")):
        mean = encoders[f"q({latent}|{','.join(given)})"].parameters_of({m: x[m] for m in given})[0]
        torch.testing.assert_close(subject.model.encode({m: x[m] for m in given}).mean, mean)


def test_every_model_on_the_command_line_is_tested_here() -> None:
    assert set(ALL_MODELS) == {model.name for model in cards() if model.is_generative}
