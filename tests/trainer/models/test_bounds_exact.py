"""Every bound, term by term, against the same bound worked out by `oracles`: draw by draw, and in expectation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.shards.schema import Modality
from tests.support.oracles import (
    Oracle,
    Rule,
    every_class,
    observed,
    on_grid,
    relaxed_on_grid,
    relaxed_with_noise,
    terms_of,
    with_noise,
)
from tests.support.tiny_models import (
    ALIKE,
    CLASSES,
    KL_MODELS,
    LABELLED_MODELS,
    ODD,
    TWO,
    UNLABELLED_MODELS,
    Tiny,
    tiny,
)
from trainer.models.posterior import Pooling

TEMPERATURE = 0.5
LABELS = ("observed", "exact", "gumbel")
CASES = [(name, label) for name in LABELLED_MODELS for label in LABELS] + [(name, "none") for name in UNLABELLED_MODELS]


@dataclass
class Recorded:
    """The draws of a model's noise, as it goes on drawing them."""

    normal: list[np.ndarray] = field(default_factory=list)
    gumbel: list[np.ndarray] = field(default_factory=list)


def record(subject: Tiny, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    for kind in ("normal", "gumbel"):
        original, draws = getattr(subject.noise, kind), getattr(recorded, kind)

        def drawing(shape: torch.Size, original: Any = original, draws: Any = draws) -> torch.Tensor:
            sample = original(shape)
            draws.append(sample.double().numpy())
            return sample

        monkeypatch.setattr(subject.noise, kind, drawing)
    return recorded


def build(name: str, label: str, **options: Any) -> Tiny:
    return tiny(name, label="exact" if label == "exact" else "gumbel", temperature=TEMPERATURE, **options)


def latents(name: str) -> list[str]:
    return ["a", "z"] if name.startswith(("sdgm", "sshmvae")) else ["z"]


def assert_draw_by_draw(
    subject: Tiny, label: str, monkeypatch: pytest.MonkeyPatch, x: Mapping[str, torch.Tensor] | None = None
) -> None:
    batch = 5
    x, y = subject.x(batch) if x is None else x, subject.y(batch)
    noise = record(subject, monkeypatch)
    with torch.no_grad():
        bound = subject.model.bound(x, y if label == "observed" else None)
    drawn = latents(subject.name)
    assert len(noise.normal) == len(drawn)
    assert len(noise.gumbel) == (label == "gumbel")
    rules: dict[str, Rule] = {v: with_noise(eps) for v, eps in zip(drawn, noise.normal, strict=True)}
    assert noise.normal[-1].shape[:-1] == ((CLASSES,) * (label == "exact")) + (subject.replicas, batch)
    if label == "observed":
        rules["y"] = observed(y.double().numpy())
    elif label == "exact":
        rules["y"] = every_class
    elif label == "gumbel":
        rules["y"] = relaxed_with_noise(noise.gumbel[0], TEMPERATURE)
    oracle = Oracle(subject, x)
    points = oracle.points(rules)
    log_p, log_q = oracle.terms(points)
    log_q_y = next((log_q[name] for name in log_q if name.startswith("q(y")), None)
    if label == "observed":
        assert log_q_y is not None
        np.testing.assert_allclose(bound.log_q_y.numpy(), log_q_y, rtol=1e-4, atol=1e-4)
        log_q = {k: t * (not k.startswith("q(y")) for k, t in log_q.items()}  # y has no log q in eqs. 4 and 8
    else:
        assert bound.log_q_y is None
    assert set(bound.log_p) == set(log_p)
    assert set(bound.log_q) == set(log_q)
    for name, term in terms_of(bound).items():
        np.testing.assert_allclose(term, (log_p | log_q)[name], rtol=1e-4, atol=1e-4, err_msg=name)
    expected = sum(log_p.values()) - sum(log_q.values())
    np.testing.assert_allclose(bound.value.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert bound.value.shape == (subject.replicas, batch)


@pytest.mark.parametrize(("name", "label"), CASES)
def test_each_term_of_one_draw_is_its_formula(name: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_draw_by_draw(build(name, label, a=2, z=2), label, monkeypatch)


POOLINGS: list[tuple[Pooling, bool]] = [("geometric", True), ("product", True), ("product", False)]
LACKING = [
    (name, label, pooling, joint)
    for name, label in CASES
    if name != "sdgm" and (name, label) != ("m2", "gumbel")
    for pooling, joint in (POOLINGS if name.endswith("-kl") else POOLINGS[:1])
]


@pytest.mark.parametrize(("name", "label", "pooling", "joint"), LACKING)
def test_rows_that_lack_modalities_have_the_bound_of_what_they_have(
    name: str, label: str, pooling: Pooling, joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    modalities = ALIKE if name == "m2" else ODD
    subject = build(name, label, modalities=modalities, pooling=pooling, joint_encoder=joint)
    assert_draw_by_draw(subject, label, monkeypatch, subject.lacking(5))


@pytest.mark.parametrize("name", [*LABELLED_MODELS, *UNLABELLED_MODELS])
def test_a_complete_rows_bound_does_not_change_by_a_bit_beside_rows_that_lack_something(name: str) -> None:
    subject = tiny(name, modalities=None if name in ("m2", "sdgm") else ODD)
    x, some = subject.x(8), subject.lacking(8)
    complete = torch.stack(list(some.present.values())).all(0)
    values = []
    for batch in (x, some):
        with torch.no_grad(), subject.noise.separate_streams("one draw"):
            values.append(subject.model.bound(batch).value)
    assert complete.any()
    assert torch.equal(values[0][complete], values[1][complete])
    if name != "sdgm":  # which has one modality
        assert (values[0][~complete] != values[1][~complete]).all()


@pytest.mark.parametrize("pooling", ["geometric", "product"])
@pytest.mark.parametrize("modalities", [TWO, ODD], ids=["two", "three"])
@pytest.mark.parametrize("name", KL_MODELS)
def test_eq_12_compares_what_a_row_has_and_nothing_where_that_is_one_modality(
    name: str, modalities: tuple[Modality, ...], pooling: Pooling
) -> None:
    subject = tiny(name, modalities=modalities, pooling=pooling)
    x = subject.lacking(12)
    has = torch.stack(list(x.present.values()))
    with torch.no_grad():
        found = torch.stack(list(subject.model.bound(x).divergence.values()))
    assert torch.equal(found != 0, has & (has.sum(0) > 1))


@pytest.mark.parametrize(
    ("name", "label"), [("sshmvae-kl", "exact"), ("sshmvae", "gumbel"), ("ssmvae", "exact"), ("jmvae-kl", "none")]
)
def test_three_modalities_of_odd_names_and_three_kinds(name: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = build(name, label, modalities=ODD, replicas=1)
    assert_draw_by_draw(subject, label, monkeypatch)
    with torch.no_grad():
        bound = subject.model.bound(subject.x(4))
    observed_names = [term for term in bound.log_p if term.split("|")[0] in ("p(keys", "p(rgb.left", "p(my depth")]
    assert len(observed_names) == 3


@pytest.mark.parametrize(("name", "label"), [("m2", "exact"), ("ssmvae", "observed"), ("sshmvae", "gumbel")])
def test_one_modality_alone(name: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_draw_by_draw(build(name, label, modalities=ALIKE[:1], replicas=1), label, monkeypatch)


def quadrature(
    subject: Tiny, label: str, x: dict[str, torch.Tensor], y: torch.Tensor
) -> tuple[Oracle, dict[str, Rule]]:
    count = 61 if label != "gumbel" else 25
    rules: dict[str, Rule] = {v: on_grid(count) for v in latents(subject.name)}
    if label == "observed":
        rules["y"] = observed(y.double().numpy()[:, :1])
    elif label == "exact":
        rules["y"] = every_class
    elif label == "gumbel":
        rules["y"] = relaxed_on_grid(TEMPERATURE, 20)
    return Oracle(subject, {m: v[:, :1] for m, v in x.items()}), rules


@pytest.mark.parametrize(("name", "label"), CASES)
def test_the_mean_of_many_draws_is_the_sum_over_y_and_the_integral_over_the_latents(name: str, label: str) -> None:
    copies = 20_000
    subject = build(name, label, seed=4)
    x, y = subject.x(1, copies=copies), subject.y(1, copies=copies)
    oracle, rules = quadrature(subject, label, x, y)
    points = oracle.points(rules)
    np.testing.assert_allclose(points.weight.sum(-1), 1, rtol=1e-6)
    log_p, log_q = oracle.terms(points)
    expected = log_p | log_q
    with torch.no_grad():
        bound = subject.model.bound(x, y if label == "observed" else None)
    if label == "observed":
        (name_q_y,) = (term for term in log_q if term.startswith("q(y"))
        assert_mean(bound.log_q_y.double().numpy(), log_q[name_q_y], "log q(y)")
        expected[name_q_y] = 0 * log_q[name_q_y]
    for term, draws in terms_of(bound).items():
        assert_mean(draws, expected[term], term)
    assert_mean(bound.value.double().numpy(), oracle.value(points, labelled=label == "observed"), "bound")


def assert_mean(draws: np.ndarray, expected: np.ndarray, name: str) -> None:
    """The mean over the batch is within 5.5 standard errors of what is expected, in every replica."""
    error = np.abs(draws.mean(-1) - expected[:, 0])
    allowed = 5.5 * draws.std(-1) / np.sqrt(draws.shape[-1]) + 1e-3  # and what the grid's step leaves
    assert (error <= allowed).all(), f"{name}: {draws.mean(-1)} is not {expected[:, 0]} (within {allowed})"
    assert (5.5 * draws.std(-1) / np.sqrt(draws.shape[-1]) < 0.5).all(), f"{name}: too few draws to tell anything"
