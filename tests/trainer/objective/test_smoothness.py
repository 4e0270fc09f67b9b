"""Smoothness: the worst perturbation is found, is as long as it may be, and in every precision."""

import math
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from tests.support.steps import ready
from tests.support.training import CPU
from trainer.models.interface import Classifier
from trainer.nn.rng import Noise
from trainer.objective.regularisers import penalties
from trainer.objective.smoothness import smoothness
from trainer.objective.views import Views


def test_smoothness_is_zero_where_nothing_turns_and_finds_the_steepest_direction() -> None:
    noise = Noise([0, 1], CPU)
    x = {"x": torch.rand(2, 5, 3), "w": torch.rand(2, 5, 2)}
    flat = lambda x: torch.log_softmax(torch.zeros(2, 5, 4) * (x["x"].sum() + x["w"].sum()), -1)  # noqa: E731
    assert smoothness(flat, noise, x, 1.0).tolist() == [0, 0]
    slope = torch.tensor([3.0, 0, 0])

    def classify(x: dict[str, Tensor]) -> Tensor:  # a logistic regression: only x's first value counts
        return torch.log_softmax(torch.stack([x["x"] @ slope, 0 * x["w"].sum(-1)], -1), -1)

    p = torch.sigmoid(x["x"] @ slope)
    worst = torch.zeros(2, 5)
    reach = 0.5 * torch.cat([x["x"], x["w"]], -1).norm(dim=-1).mean(-1)[:, None, None]
    for sign in (1, -1):
        q = torch.sigmoid((x["x"] + sign * reach * torch.tensor([1.0, 0, 0])) @ slope)
        worst = torch.maximum(worst, p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    value = smoothness(classify, noise, x, 0.5)  # type: ignore[arg-type]
    assert (value <= worst.mean(-1) + 1e-5).all()
    assert (value > 0.3 * worst.mean(-1)).all()  # the sign is drawn, and the divergence is not symmetric


@pytest.mark.parametrize("confidence", [1, 30, 60, 90])
def test_smoothness_moves_an_example_no_further_where_predictions_are_confident(confidence: float) -> None:
    """The slopes of a certain prediction are as small as 1e-38, and their squares nothing."""
    asked = list[Tensor]()

    def classify(x: dict[str, Tensor]) -> Tensor:
        asked.append(x["x"])
        return torch.log_softmax(confidence * torch.tensor([1.0, 0.0]) + x["x"][..., :2], -1)

    x = {"x": torch.rand(2, 5, 3)}
    smoothness(classify, Noise([0, 1], CPU), x, 0.5)  # type: ignore[arg-type]
    lengths = (asked[-1] - x["x"]).norm(dim=-1)
    torch.testing.assert_close(lengths, 0.5 * x["x"].norm(dim=-1).mean(-1, keepdim=True).expand(2, 5))


def test_smoothness_finds_as_bad_a_perturbation_in_bfloat16() -> None:
    """In a deep network that is sure of its predictions, where rounding moves them more than a short step does."""

    def found(seed: int, rounded: bool) -> float:
        generator = torch.Generator().manual_seed(seed)
        *weights, last = (torch.randn(64, 64, generator=generator) / math.sqrt(32) for _ in range(5))
        x = {"x": (torch.rand(1, 100, 64, generator=generator) < 0.3).float()}

        def classify(x: dict[str, Tensor]) -> Tensor:
            h = x["x"]
            for weight in weights:
                h = (h @ weight).relu()
            return torch.log_softmax((20 * h @ last[:, :10]).float(), -1)

        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            return float(smoothness(classify, Noise([1], CPU), x, 0.05))  # type: ignore[arg-type]

    ratios = [found(seed, True) / found(seed, False) for seed in range(5)]
    assert sum(ratios) / len(ratios) > 0.95


def test_smoothness_holds_for_the_labelled_examples_too(tmp_path: Path) -> None:
    """Each part of the batch counts as it would alone, with its own mean length and its own mean."""
    step, x_l, y = ready(tmp_path, smoothness=1, radius=0.5)
    assert step.batches.index_u is not None
    model, x_u = cast(Classifier, step.model), step.data.x(step.batches.index_u)
    rows = y.shape[1]
    x = {m: torch.cat([x_l[m], x_u[m]], 1) for m in x_l}
    drawn = {m: step.noise.normal(values.shape) for m, values in x.items()}

    def value_of(part: slice, views: Views) -> float:
        order = iter(drawn)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step.noise, "normal", lambda _: drawn[next(order)][:, part])
            return float(penalties(step.settings, step.noise, views)["smoothness"][1].detach())

    labelled = value_of(slice(rows), Views(model, x_l, y))
    unlabelled = value_of(slice(rows, None), Views(model, x_u))
    assert labelled > 0
    assert value_of(slice(None), Views(model, x, y)) == pytest.approx(labelled + unlabelled, rel=1e-4)


def test_smoothness_of_one_modality_is_that_of_each_view_alone(tmp_path: Path) -> None:
    step, x, _ = ready(tmp_path, partial_smoothness=1)
    model = cast(Classifier, step.model)
    with step.noise.separate_streams("smoothness"):
        (value,) = penalties(step.settings, step.noise, Views(model, x)).values()
    with step.noise.separate_streams("smoothness"):
        parts = [smoothness(model.classify, step.noise, {m: x[m]}, step.settings.radius) for m in ("x", "w")]
    assert float(value[1].detach()) == pytest.approx(float(sum(parts).detach()), rel=1e-5)
