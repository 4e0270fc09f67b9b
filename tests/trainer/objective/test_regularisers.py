"""What goes beyond the paper: each term against its definition by hand, and nothing of it where its weight is 0."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from pipeline.runtime.errors import UsageError
from tests.support.steps import ready
from tests.support.training import CPU, V, W, X, make_settings, make_shard, make_step, outcome, run_stack, scores
from trainer.jobs.plan import plan
from trainer.jobs.train import evaluate_run
from trainer.models.interface import Classifier
from trainer.nn.batch_norm import frozen_statistics
from trainer.objective.regularisers import (
    agreement,
    consistency,
    information,
    label_terms,
    partial_labels,
    penalties,
    propagated_labels,
)
from trainer.objective.views import View, Views


def test_partial_labels_is_the_mean_of_the_cross_entropies(tmp_path: Path) -> None:
    step, x, y = ready(tmp_path)
    model = cast(Classifier, step.model)
    expected = 0.0
    for m in ("x", "w"):
        probabilities = model.classify({m: x[m]}).exp().detach()
        rows = [-math.log(float(probabilities[0, b, int(y[0, b].argmax())])) for b in range(y.shape[1])]
        expected += sum(rows) / len(rows)
    assert float(partial_labels(Views(model, x, y), y).detach()) == pytest.approx(expected, rel=1e-5)


def test_consistency_is_the_divergence_and_teaches_the_single_modalities_alone(tmp_path: Path) -> None:
    step, x, _ = ready(tmp_path)
    model = cast(Classifier, step.model)
    value = consistency(model, x, model.classify(x))
    p = model.classify(x).exp()[0].detach()
    expected = 0.0
    for m in ("x", "w"):
        q = model.classify({m: x[m]}).exp()[0].detach()
        expected += float(sum(p[b, k] * (p[b, k] / q[b, k]).log() for b in range(len(p)) for k in range(3)) / len(p))
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
    value.sum().backward()
    learning = {name.split(".")[0] for name, parameter in step.model.named_parameters() if parameter.grad is not None}
    assert learning == {"q_a_each"}  # the teacher q(a|X) is left alone, and so is the classifier on top of both
    assert all(parameter.requires_grad for parameter in step.model.parameters())


def test_labels_at_the_mean_are_the_cross_entropy_of_what_the_test_asks(tmp_path: Path) -> None:
    step, x, y = ready(tmp_path, mean_alpha=1)
    model = cast(Classifier, step.model)
    log_q = model.classify(x)[0].detach()
    by_hand = -sum(float(log_q[b, int(y[0, b].argmax())]) for b in range(len(log_q))) / len(log_q)
    (value,) = label_terms(step.settings, Views(model, x, y)).values()
    assert float(value[1].detach()) == pytest.approx(by_hand, rel=1e-5)


def test_information_is_the_mutual_information_of_label_and_example() -> None:
    sure = 50 * torch.eye(3)[None].log_softmax(-1).clamp_min(-1)  # each example of its own class
    log_q = torch.stack([
        torch.log_softmax(sure[0], -1),  # all classes alike
        torch.log_softmax(sure[0][[0, 0, 0]], -1),  # one class for all
        torch.full((3, 3), 1 / 3).log(),  # nothing said
        torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 1e-30], [0.2, 0.2, 0.6]]).log(),
    ])  # fmt: skip
    joint = log_q[3].exp() / 3  # [example, class]
    independent = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    by_hand = float((joint * (joint / independent).log()).sum())
    assert information(log_q).tolist() == pytest.approx([math.log(3), 0, 0, by_hand], abs=1e-5)


def test_information_wants_one_class_for_each_example_and_every_class_about_as_often() -> None:
    logits = (0.1 * torch.randn(1, 90, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (-information(torch.log_softmax(logits, -1))).sum().backward()
        optimizer.step()
    q = torch.softmax(logits.detach(), -1)[0]
    assert (q.max(-1).values > 0.95).all()
    assert all(20 <= count <= 40 for count in q.argmax(-1).bincount().tolist())


def test_agreement_is_the_mutual_information_of_the_labels_that_two_views_give() -> None:
    sure = torch.log_softmax(50 * torch.eye(3), -1)
    unsure = torch.full((3, 3), 1 / 3).log()
    first = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 1e-30], [0.2, 0.2, 0.6]]).log()
    second = torch.tensor([[0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.7, 0.2, 0.1]]).log()
    log_p = torch.stack([sure, sure, sure, first])
    log_q = torch.stack([sure, sure[[1, 2, 0]], unsure, second])
    joint = torch.zeros(3, 3)
    for p, q in zip(first.exp(), second.exp(), strict=True):
        joint += (torch.outer(p, q) + torch.outer(q, p)) / 6
    by_hand = float((joint * (joint / torch.outer(joint.sum(1), joint.sum(0))).log()).sum())
    # The same class; each another one, made symmetric: one of two; nothing said by one of them.
    expected = [math.log(3), math.log(3) - math.log(2), 0, by_hand]
    p_view, q_view = View(log_p), View(log_q)
    assert agreement([p_view, q_view]).tolist() == pytest.approx(expected, abs=1e-5)
    pairs = [agreement([p_view, q_view]), agreement([p_view, p_view]), agreement([p_view, q_view])]
    torch.testing.assert_close(agreement([p_view, q_view, p_view]), torch.stack(pairs).sum(0))


def test_agreement_is_between_all_modalities_and_each_alone_and_teaches_every_network(tmp_path: Path) -> None:
    step, x, _ = ready(tmp_path, agreement=1)
    model = cast(Classifier, step.model)
    (value,) = penalties(step.settings, step.noise, Views(model, x)).values()
    views = [View(model.classify(view)) for view in (x, {"x": x["x"]}, {"w": x["w"]})]
    torch.testing.assert_close(value[1], -agreement(views))
    value[1].sum().backward()
    learning = {name.split(".")[0] for name, parameter in step.model.named_parameters() if parameter.grad is not None}
    assert learning == {"q_a", "q_a_each", "q_y"}


def test_agreement_finds_the_classes_that_both_views_see_and_not_one_views_own() -> None:
    """Each view sees the class and, louder, a trait of its own; information would take the trait."""
    draw = torch.Generator().manual_seed(0)
    shared, own_x, own_w = (torch.randint(2, (400,), generator=draw) for _ in range(3))
    x, w = (torch.stack([2 * shared - 1, 6 * trait - 3], -1).float()[None] for trait in (own_x, own_w))
    weights = [(0.1 * torch.randn(2, 2, generator=draw)).requires_grad_() for _ in range(2)]
    optimizer = torch.optim.Adam(weights, 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        views = [View(torch.log_softmax(view @ weight, -1)) for view, weight in zip((x, w), weights, strict=True)]
        (-agreement(views)).sum().backward()
        optimizer.step()
    given = (x @ weights[0])[0].argmax(-1)
    assert max(float((given == shared).float().mean()), float((given != shared).float().mean())) > 0.95


def test_every_penalty_is_taken_off_j_with_its_weight(tmp_path: Path) -> None:
    weights: dict[str, Any] = {
        "partial_alpha": 2,
        "consistency": 3,
        "smoothness": 0.5,
        "information": 4,
        "mean_alpha": 5,
        "agreement": 6,
    }
    step, _, _ = ready(tmp_path, **weights)
    result = step.objective()
    terms = result.terms
    step, _, _ = ready(tmp_path)
    plain = step.objective()
    less = 2 * terms["-log q(y) of one modality"] + 3 * terms["consistency"] + 0.5 * terms["smoothness"]
    less = less + 4 * terms["-I(y; X)"] + 5 * terms["-log q(y) at the mean"] + 6 * terms["-I(y; y')"]
    assert float(result.value.detach()) == pytest.approx(float((plain.value - less).detach()), rel=1e-4)
    assert set(terms) - set(plain.terms) == {
        "-log q(y) at the mean", "-log q(y) of one modality", "consistency", "smoothness", "-I(y; X)", "-I(y; y')",
    }  # fmt: skip


def test_before_the_onset_training_is_the_papers_and_after_it_the_terms_count(tmp_path: Path) -> None:
    terms: dict[str, Any] = {"consistency": 1, "smoothness": 1, "partial_smoothness": 1, "information": 1}
    step, _, _ = ready(tmp_path, onset=0.5, **terms)
    plain, _, _ = ready(tmp_path)
    half = step.batches.per_epoch * step.settings.epochs // 2
    assert half > 0
    for number in range(half):
        step(number)
        plain(number)
    for (name, parameter), plain_parameter in zip(step.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(parameter, plain_parameter), name
    assert step.terms.names != plain.terms.names
    assert not step.terms.totals[[step.terms.names.index(name) for name in step.extra_terms.names]].any()
    step(half)
    plain(half)
    assert step.terms.totals[[step.terms.names.index(name) for name in step.extra_terms.names]].all()
    assert any(
        not torch.equal(parameter, plain_parameter)
        for parameter, plain_parameter in zip(step.model.parameters(), plain.model.parameters(), strict=True)
    )


def test_the_average_follows_the_weights_and_is_what_is_kept(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("sshmvae", shard, averaging=0.5)], shard)
    expected = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    for number in range(3):
        step(number)
        decay = min(0.5, (1 + number) / (10 + number))
        for name, tensor in step.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor
    kept = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    with step.average.applied():
        for name, tensor in step.model.state_dict().items():
            torch.testing.assert_close(tensor, expected[name])
    for name, tensor in step.model.state_dict().items():
        assert torch.equal(tensor, kept[name])
    # A finished run's weights give the scores that it has written.
    (run,) = run_stack(tmp_path / "runs", [make_settings("sshmvae", shard, averaging=0.5)], [shard])
    assert scores(evaluate_run(run, CPU)) == scores(run.result())


def test_the_cosine_falls_from_the_rate_to_nothing(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("sshmvae", shard, schedule="cosine")], shard)
    rates = []
    for number in range(10):
        step.set_pace(number)
        rates.append(step.optimizer.param_groups[0]["lr"])
    assert rates[0] == 1e-2
    assert rates[5] == pytest.approx(5e-3)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[9] < 3e-4


def test_with_an_onset_rate_and_average_begin_there(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae", shard, schedule="cosine", averaging=0.99, onset=0.5, information=1, epochs=10)
    step = make_step([settings], shard)
    total = step.batches.per_epoch * 10
    rates, shares = [], []
    for number in range(total):
        step.set_pace(number)
        rates.append(step.optimizer.param_groups[0]["lr"])
        shares.append(float(step.average.weight))
    half = math.ceil(total / 2)
    assert set(rates[: half + 1]) == {settings.learning_rate}
    assert rates[half:] == sorted(rates[half:], reverse=True)
    assert rates[-1] < 0.1 * settings.learning_rate
    assert shares[half : total - 1] == pytest.approx(shares[: total - 1 - half])  # as after the start
    assert shares[half] == pytest.approx(0.9)


def test_stacked_replicas_stay_apart_with_all_of_it(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    beyond: dict[str, Any] = {
        "partial_alpha": 1, "consistency": 1, "smoothness": 1, "information": 1, "averaging": 0.9, "mean_alpha": 1,
        "agreement": 1, "onset": 0.3,
    }  # fmt: skip
    stack = [make_settings("sshmvae-kl", shard, seed=seed, **beyond) for seed in range(3)]
    together = run_stack(tmp_path / "together", stack, [shard] * 3)
    pairs = run_stack(tmp_path / "pairs", stack, [shard] * 3, most=2)
    for run_together, run_in_pairs in zip(together, pairs, strict=True):
        weights, pair_weights = run_together.read_weights(), run_in_pairs.read_weights()
        for name in weights:
            torch.testing.assert_close(weights[name], pair_weights[name], rtol=1e-3, atol=1e-4)
        assert outcome(run_together)["labelled.txt"] == outcome(run_in_pairs)["labelled.txt"]


def test_it_works_for_three_modalities_and_for_models_without_encoders(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", modalities=(X, W, V))
    beyond: dict[str, Any] = {
        "partial_alpha": 1, "consistency": 1, "smoothness": 1, "information": 1, "agreement": 1,
    }  # fmt: skip
    for model in ("sshmvae-kl", "ssmvae", "m2"):
        modalities = ("x", "w", "v") if model != "m2" else ("x",)
        terms = beyond if model != "m2" else {"smoothness": 1, "information": 1}
        settings = make_settings(model, shard, modalities=modalities, **terms)
        step = make_step([settings], shard)
        step(0)
        assert bool(step.terms.finite.all())


@pytest.mark.parametrize(
    ("model", "modalities", "values", "said"),
    [
        ("jmvae", ("x", "w"), {"smoothness": 1}, "jmvae has no classifier, so it cannot use smoothness"),
        ("ssmvae", ("x", "w"), {"onset": 0.5}, "onset says when the terms beyond the paper are switched on"),
        ("jmvae", ("x", "w"), {"information": 1}, "jmvae has no classifier, so it cannot use information"),
        ("ssmvae", ("x",), {"consistency": 1}, "consistency needs two modalities"),
        ("ssmvae", ("x",), {"agreement": 1}, "agreement needs two modalities"),
        ("ssmvae", ("x",), {"partial_alpha": 1}, "partial_alpha needs two modalities"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, model: str, modalities: tuple[str, ...], values: dict[str, Any], said: str
) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    with pytest.raises(UsageError, match=said):
        plan(model, [shard], preset="paper", values={"modalities": modalities, **values})


def test_propagated_labels_are_the_cross_entropies_weighted_by_their_own_confidence(tmp_path: Path) -> None:
    step, x, _ = ready(tmp_path)
    model = cast(Classifier, step.model)
    distinct = torch.tensor([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0.0, 0.45, 0.55]])
    soft = distinct[torch.arange(len(x["x"][0])) % 4]
    views = Views(model, x).every(slice(None))
    assert len(views) == 3
    expected = 0.0
    for log_q in (view.log_q[0].detach() for view in views):
        for row, p in enumerate(soft.double()):
            second, first = sorted(p.tolist())[1:]
            confidence = ((first - second) / (first + second)) ** 2
            cubed = p**3 / (p**3).sum()
            expected -= confidence * float((cubed * log_q[row].double()).sum()) / len(soft)
    assert float(propagated_labels(views, soft.unsqueeze(0)).detach()) == pytest.approx(expected, rel=1e-4)
    assert len(Views(model, {"x": x["x"]}).every(slice(None))) == 1


def test_a_step_teaches_the_propagated_labels_of_its_own_rows_from_the_first_step_on(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("sshmvae-kl", shard, seed=seed, propagation=3, agreement=1, onset=0.5) for seed in (0, 1)]
    step = make_step(stack, shard)
    step.batches.load(4)
    step.set_pace(0)
    index = step.batches.index_u
    assert step.soft_labels is not None
    assert index is not None
    soft = torch.stack([step.soft_labels[r, index[r]] for r in (0, 1)])  # one shard in memory: its rows come first
    with frozen_statistics():
        by_hand = propagated_labels(Views(cast(Classifier, step.model), step.data.x(index)).every(slice(None)), soft)
    terms = step.objective().terms
    torch.testing.assert_close(terms["-log q(y) propagated"], by_hand.detach())
    assert not terms["-I(y; y')"].any()  # it joins later


def test_nothing_is_propagated_where_everything_is_labelled(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("sshmvae-kl", shard, labels="all", propagation=3)], shard)
    step(0)
    assert "-log q(y) propagated" not in step.terms.names
