"""Labelled and unlabelled rows in one pass: term by term what two passes give, on the same noise, in float64."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from pipeline.shards.shard import Modality, Shard
from tests.support.training import (
    CPU,
    THREE,
    WITH_LABELS,
    W,
    X,
    holey_shard,
    make_data,
    make_settings,
    make_shard,
)
from trainer.models.bound import Bound
from trainer.models.interface import Classifier
from trainer.nn.batch_norm import frozen_statistics
from trainer.nn.presence import some_rows
from trainer.nn.rng import Noise
from trainer.nn.segments import current_segments, in_segments, segments_of
from trainer.objective.views import Views
from trainer.training.step import make_model

ALIKE = (X, Modality("w", 3, "bernoulli"))  # what M2 can join
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


class RecordedNoise(Noise):
    """Noise of which some rows can be drawn again: a draw's values depend on its number and on their row alone.

    Attributes:
        rows: the rows of the whole batch that the next draws are for.
    """

    def __init__(self, seeds: Sequence[int], batch: int) -> None:
        super().__init__(seeds, CPU)
        self.batch, self.rows = batch, slice(0, batch)
        self.numbers: dict[str, int] = {}

    def of_rows(self, rows: slice) -> None:
        self.rows, self.numbers = rows, {}

    def _draw(self, shape: Sequence[int], method: str, **_: Any) -> Tensor:
        number = self.numbers[method] = self.numbers.get(method, -1) + 1
        generator = torch.Generator().manual_seed(100 * number + len(method))
        values = torch.rand(self.replicas, self.batch, shape[-1], generator=generator, dtype=torch.float64)
        if method == "exponential_":  # the noise of the labels, drawn for unlabelled rows only
            return values[:, self.batch - shape[-2] :]
        return values[:, self.rows].expand(*shape)


def problem(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch, holes: bool = False, **changes: Any
) -> tuple[Classifier, RecordedNoise, Any, Tensor]:
    """A stack of two in float64, its noise, a batch, and the labels of its first rows."""
    modalities = {"m2": ALIKE, "sdgm": (X,)}.get(model, THREE if holes else (X, W))
    shard: Shard = (holey_shard if holes else make_shard)(folder / "shard.h5", modalities)
    stack = [make_settings(model, shard, seed=seed, batch_size=7, labelled_batch_size=5, **changes) for seed in (0, 1)]
    data = make_data(stack, shard, shard)
    noise = RecordedNoise((0, 1), 12)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.training.step.Noise", lambda *_: noise)
        made, _ = make_model(stack, data, CPU)
    monkeypatch.setattr(Tensor, "float", lambda self: self)  # densities are float32; here nothing may be rounded
    index = torch.stack([torch.cat([torch.from_numpy(rows.labelled[:5]), torch.from_numpy(rows.unlabelled[:7])])
                         for rows in data.examples])  # fmt: skip
    x = data.x(index)
    for m in x:
        cast(dict[str, Tensor], x)[m] = x[m].double()
    return cast(Classifier, made.double()), noise, x, data.y(index[:, :5]).double()


def terms(bound: Bound) -> dict[str, Tensor]:
    found = {**{f"p {k}": v for k, v in bound.log_p.items()}, **{f"q {k}": v for k, v in bound.log_q.items()}}
    found |= {f"kl {k}": v for k, v in bound.divergence.items()}
    return found | ({"y": bound.log_q_y} if bound.log_q_y is not None else {})


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
@pytest.mark.parametrize("estimator", ["gumbel", "exact"])
@pytest.mark.parametrize("model", WITH_LABELS)
def test_one_pass_gives_the_bounds_gradients_and_statistics_of_two(
    model: str, estimator: str, holes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, noise, x, y = problem(model, tmp_path, monkeypatch, holes, label_estimator=estimator)
    module, before = cast(Any, classifier), {k: v.clone() for k, v in cast(Any, classifier).state_dict().items()}

    noise.of_rows(slice(0, 5))
    with frozen_statistics():
        labelled = classifier.bound(some_rows(x, slice(0, 5)), y)
    noise.of_rows(slice(5, 12))
    unlabelled = classifier.bound(some_rows(x, slice(5, 12)))
    (labelled.value.sum() + labelled.log_q_y.sum() + unlabelled.value.sum()).backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    statistics = {k: v.clone() for k, v in module.state_dict().items()}

    module.load_state_dict(before)
    module.zero_grad(set_to_none=True)
    noise.of_rows(slice(0, 12))
    with in_segments(segments_of(y, 12)):
        first, second = classifier.bound(x, y).divided(y)
    assert first is not None
    assert second is not None
    for one, other in ((first, labelled), (second, unlabelled)):
        assert terms(one).keys() == terms(other).keys()
        for name, term in terms(one).items():
            torch.testing.assert_close(term, terms(other)[name], msg=name, **EXACT)
    (first.value.sum() + first.log_q_y.sum() + second.value.sum()).backward()
    assert gradients.keys() == {name for name, p in module.named_parameters() if p.grad is not None}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-9, atol=1e-9, msg=name)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, statistics[name], msg=name, **EXACT)


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
@pytest.mark.parametrize("model", WITH_LABELS)
def test_views_from_the_bounds_posteriors_are_those_inferred_afresh(
    model: str, holes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooling = {"pooling": "product"} if model == "sshmvae-kl" else {}
    classifier, _, x, y = problem(model, tmp_path, monkeypatch, holes, **pooling)
    with frozen_statistics():  # a batch with fewer than two such rows takes the running ones
        with in_segments(segments_of(y, 12)):
            bound = classifier.bound(x, y)
        known, afresh = Views(classifier, x, y, bound.posteriors), Views(classifier, x, y)
        for rows in (known.labelled, known.unlabelled):
            apart = Views(classifier, some_rows(x, rows))  # in a pass of their own
            for one, two, three in zip(
                known.every(rows), afresh.every(rows), apart.every(apart.unlabelled), strict=True
            ):
                there = slice(None) if one.rows is None else one.rows  # the others' predictions mean nothing
                torch.testing.assert_close(one.log_q[there], two.log_q[there], **EXACT)
                torch.testing.assert_close(one.log_q[there], three.log_q[there], **EXACT)


def test_a_context_of_segments_ends_with_an_error_too() -> None:
    y = torch.ones(2, 5, 3)
    with pytest.raises(ZeroDivisionError), in_segments(segments_of(y, 12)):
        raise ZeroDivisionError
    assert current_segments() is None
    assert segments_of(y, 5) is None
    assert segments_of(None, 12) is None
    with in_segments(None):
        assert current_segments() is None
