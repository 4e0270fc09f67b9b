"""Eqs. 6, 7, 12 and 13 over records of bounds made by hand: every mean and weight is worked out in the test."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.models.bound import Bound
from trainer.objective.semisupervised import objective

REPLICAS = 3
ALPHA = torch.tensor([1.0, 0.5, 20.0])
BETA = torch.tensor([0.1, 1.0, 10.0])
SHARE = torch.tensor([0.05, 0.5, 0.9])
BATCH = {"L": 4, "U": 7}


def terms(symbol: str, count: int, seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(REPLICAS, BATCH[symbol], generator=g, requires_grad=True) for _ in range(count)]


def record(symbol: str, *, classifier: bool = True, encoders: bool = True) -> tuple[Bound, dict[str, np.ndarray]]:
    """A bound with two log p, two log q, and what else a model may have; and the same as arrays."""
    log_px, log_pz, log_qz, log_qy, likelihood, kl_x, kl_w = terms(symbol, 7, seed=len(symbol) + ord(symbol))
    bound = Bound(
        {"p(x|z)": log_px, "p(z)": log_pz},
        {"q(z|x)": log_qz, "q(y|x)": log_qy},
        log_q_y=likelihood if classifier and symbol == "L" else None,
        divergence={"q(a|x)": kl_x, "q(a|w)": kl_w} if encoders else {},
    )
    names = ("p(x|z)", "p(z)", "q(z|x)", "q(y|x)", "likelihood", "q(a|x)", "q(a|w)")
    values = (log_px, log_pz, log_qz, log_qy, likelihood, kl_x, kl_w)
    return bound, {name: value.detach().double().numpy() for name, value in zip(names, values, strict=True)}


def value(t: dict[str, np.ndarray]) -> np.ndarray:
    return t["p(x|z)"] + t["p(z)"] - t["q(z|x)"] - t["q(y|x)"]


def test_the_value_of_a_bound_is_log_p_less_log_q() -> None:
    bound, t = record("L")
    np.testing.assert_allclose(bound.value.detach(), value(t), rtol=1e-5, atol=1e-6)


def test_eqs_6_7_12_and_13() -> None:
    (labelled, ls), (unlabelled, us) = record("L"), record("U")
    result = objective(labelled, unlabelled, alpha=ALPHA, beta=BETA, labelled_share=SHARE)
    by_term = {name: term.detach().numpy() for name, term in result.terms.items()}
    for r in range(REPLICAS):
        j = 0.0
        for i in range(BATCH["L"]):  # eq. 6, and the first mean of eq. 7
            j += (value(ls)[r, i] + float(ALPHA[r]) * ls["likelihood"][r, i]) / BATCH["L"]
        for i in range(BATCH["U"]):
            j += value(us)[r, i] / BATCH["U"]
        share = float(SHARE[r])  # eq. 12: the mean over D_L and D_U together
        div_l = sum(ls[q][r].mean() for q in ("q(a|x)", "q(a|w)"))
        div_u = sum(us[q][r].mean() for q in ("q(a|x)", "q(a|w)"))
        j_div = share * div_l + (1 - share) * div_u
        assert by_term["J"][r] == pytest.approx(j - float(BETA[r]) * j_div, rel=1e-4, abs=1e-5)
        assert by_term["J_div"][r] == pytest.approx(j_div, rel=1e-4, abs=1e-5)
        assert by_term["L"][r] == pytest.approx(value(ls)[r].mean(), rel=1e-4, abs=1e-5)
        assert by_term["U"][r] == pytest.approx(value(us)[r].mean(), rel=1e-4, abs=1e-5)
        assert by_term["log q(y)"][r] == pytest.approx(ls["likelihood"][r].mean(), rel=1e-4, abs=1e-5)
    assert result.terms["J"] is result.value
    torch.testing.assert_close(result.loss, -result.value.sum())


def test_eq_12_over_batches_that_are_the_whole_sets_is_their_common_mean() -> None:
    """With D_L and D_U themselves as batches, J_div is the plain mean over all eleven examples."""
    (labelled, ls), (unlabelled, us) = record("L"), record("U")
    share = torch.full((REPLICAS,), 4 / 11)
    result = objective(labelled, unlabelled, alpha=ALPHA, beta=BETA, labelled_share=share)
    together = np.concatenate([ls["q(a|x)"] + ls["q(a|w)"], us["q(a|x)"] + us["q(a|w)"]], axis=1)
    np.testing.assert_allclose(result.terms["J_div"], together.mean(1), rtol=1e-5, atol=1e-6)


def test_without_encoders_beta_says_nothing() -> None:
    (labelled, ls), (unlabelled, us) = record("L", encoders=False), record("U", encoders=False)
    result = objective(labelled, unlabelled, alpha=ALPHA, beta=BETA, labelled_share=SHARE)
    expected = value(ls).mean(1) + ALPHA.numpy() * ls["likelihood"].mean(1) + value(us).mean(1)
    np.testing.assert_allclose(result.value.detach(), expected, rtol=1e-5, atol=1e-5)
    assert "J_div" not in result.terms


def test_an_unlabelled_model_has_the_mean_bound_and_the_divergence_of_its_one_batch() -> None:
    unlabelled, us = record("U")
    result = objective(None, unlabelled, alpha=ALPHA, beta=BETA, labelled_share=SHARE)
    expected = value(us).mean(1) - BETA.numpy() * (us["q(a|x)"] + us["q(a|w)"]).mean(1)
    np.testing.assert_allclose(result.value.detach(), expected, rtol=1e-5, atol=1e-5)


def test_with_every_example_labelled_the_labelled_batch_stands_for_all() -> None:
    """Table 6: SS-HMVAE-kl trains on D_L with eq. 12."""
    labelled, ls = record("L")
    result = objective(labelled, None, alpha=ALPHA, beta=BETA, labelled_share=SHARE)
    expected = value(ls).mean(1) + ALPHA.numpy() * ls["likelihood"].mean(1)
    expected = expected - BETA.numpy() * (ls["q(a|x)"] + ls["q(a|w)"]).mean(1)
    np.testing.assert_allclose(result.value.detach(), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_each_term_is_its_weight_in_its_own_replica() -> None:
    (labelled, _), (unlabelled, _) = record("L"), record("U")
    objective(labelled, unlabelled, alpha=ALPHA, beta=BETA, labelled_share=SHARE).loss.backward()
    weights = {
        ("L", "p(x|z)"): -torch.ones(REPLICAS),
        ("L", "q(z|x)"): torch.ones(REPLICAS),
        ("L", "q(a|x)"): BETA * SHARE,
        ("U", "p(z)"): -torch.ones(REPLICAS),
        ("U", "q(y|x)"): torch.ones(REPLICAS),
        ("U", "q(a|w)"): BETA * (1 - SHARE),
    }
    for (symbol, name), weight in weights.items():
        bound = labelled if symbol == "L" else unlabelled
        term = {**bound.log_p, **bound.log_q, **bound.divergence}[name]
        assert term.grad is not None
        torch.testing.assert_close(term.grad, (weight / BATCH[symbol])[:, None].expand(-1, BATCH[symbol]))
    assert labelled.log_q_y is not None
    assert labelled.log_q_y.grad is not None
    torch.testing.assert_close(labelled.log_q_y.grad, (-ALPHA / BATCH["L"])[:, None].expand(-1, BATCH["L"]))


def test_one_replica_of_the_objective_has_no_gradient_in_another() -> None:
    (labelled, _), (unlabelled, _) = record("L"), record("U")
    objective(labelled, unlabelled, alpha=ALPHA, beta=BETA, labelled_share=SHARE).value[1].backward()
    for bound in (labelled, unlabelled):
        for term in (*bound.log_p.values(), *bound.log_q.values(), *bound.divergence.values()):
            assert term.grad is not None
            assert (term.grad[[0, 2]] == 0).all()
            assert (term.grad[1] != 0).all()


def test_the_terms_are_named_by_the_batch_and_the_distribution_and_add_up() -> None:
    (labelled, ls), (unlabelled, us) = record("L"), record("U")
    result = objective(labelled, unlabelled, alpha=ALPHA, beta=BETA, labelled_share=SHARE)
    t = result.terms
    for symbol, values in (("L", ls), ("U", us)):
        for name in ("p(x|z)", "p(z)"):
            np.testing.assert_allclose(t[f"{symbol}: log {name}"], values[name].mean(1), rtol=1e-5, atol=1e-6)
        for name in ("q(z|x)", "q(y|x)"):
            np.testing.assert_allclose(t[f"{symbol}: -log {name}"], -values[name].mean(1), rtol=1e-5, atol=1e-6)
        for name in ("q(a|x)", "q(a|w)"):
            np.testing.assert_allclose(t[f"{symbol}: KL to {name}"], values[name].mean(1), rtol=1e-5, atol=1e-6)
        parts = [v for k, v in t.items() if k.startswith((f"{symbol}: log", f"{symbol}: -log"))]
        torch.testing.assert_close(torch.stack(parts).sum(0), t[symbol])
    assert not any(term.requires_grad for name, term in t.items() if name != "J")
