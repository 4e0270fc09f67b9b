"""Rows that lack modalities: what they lack changes nothing, in memory and on disk, alone and in stacks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality, Shard
from tests.support.training import (
    CO_TRAINED,
    CPU,
    MODELS,
    THREE,
    W,
    X,
    clusters,
    holey_shard,
    make_data,
    make_settings,
    make_shard,
    make_step,
    run_stack,
    turns,
)
from trainer.baselines.references import references
from trainer.data.resident import Resident
from trainer.data.streaming import load
from trainer.jobs.plan import plan
from trainer.nn.batch_norm import ReplicaBatchNorm, only_rows
from trainer.nn.presence import Incomplete, present_rows
from trainer.settings.run_settings import Settings
from trainer.training.step import label_prior

ALIKE = (X, Modality("w", 3, "bernoulli"))  # what M2 can join
TERMS: dict[str, Any] = {
    "propagation": 1, "mean_alpha": 1, "partial_alpha": 1, "consistency": 1, "smoothness": 1, "partial_smoothness": 1,
    "information": 1, "agreement": 1,
}  # fmt: skip


def modalities_of(model: str) -> tuple[Modality, ...]:
    return {"m2": ALIKE, "sdgm": (X,)}.get(model, THREE)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("window", [None, 40])
def test_every_model_trains_and_scores_the_rows_that_have_something(
    model: str, window: int | None, tmp_path: Path
) -> None:
    shard = holey_shard(tmp_path / "shard.h5", modalities_of(model))
    settings = make_settings(model, shard, window=window)
    (run,) = run_stack(tmp_path / "runs", [settings], [shard])
    scores = {score.given: score for score in run.result().scores}
    for name in (m.name for m in modalities_of(model)):
        assert scores[name].examples == shard.test.has(name).sum()
    assert scores["+".join(m.name for m in modalities_of(model))].examples == 30
    assert all(np.isfinite(score.nll) for score in scores.values())


@pytest.mark.parametrize("pooling", ["geometric", "product"])
@pytest.mark.parametrize("joint", [True, False])
def test_what_a_row_lacks_changes_no_term_of_a_step(pooling: str, joint: bool, tmp_path: Path) -> None:
    """In training mode, with batch normalisation, and whatever stands in the place of what is missing."""
    shard = holey_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae-kl", shard, pooling=pooling, joint_encoder=joint, **TERMS)

    def terms(scrambled: bool) -> Mapping[str, Tensor]:
        step = make_step([settings], shard)
        step.batches.load(0)
        assert isinstance(step.data, Resident)
        if scrambled:
            draw = torch.Generator().manual_seed(0)
            for name, rows in step.data.present.items():
                values = step.data.features[name]
                values[~rows] = torch.rand(values[~rows].shape, generator=draw)
        step.objective()
        return step.objective().terms

    clean, scrambled = terms(scrambled=False), terms(scrambled=True)
    assert {name for name, value in clean.items() if not value.isfinite().all()} == set()
    assert {name for name, value in clean.items() if not torch.allclose(scrambled[name], value, rtol=1e-5)} == set()


def test_statistics_count_only_the_rows_that_are_there() -> None:
    x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[True, True, False, True, False, True], [False, False, True, True, True, True]])
    norm, alone = ReplicaBatchNorm(3, 2), [ReplicaBatchNorm(3, 1) for _ in range(2)]
    with only_rows(rows):
        result = norm(x)
    for r in range(2):
        torch.testing.assert_close(result[r][rows[r]], alone[r](x[r][rows[r]]))
        torch.testing.assert_close(norm.mean[r], alone[r].mean[0])
        torch.testing.assert_close(norm.variance[r], alone[r].variance[0])
    with only_rows(torch.zeros_like(rows)):
        kept = norm.mean.clone(), norm.variance.clone()
        assert norm(x).isfinite().all()
        assert torch.equal(torch.stack(kept), torch.stack((norm.mean, norm.variance)))


def test_streamed_rows_lack_what_rows_in_memory_lack(tmp_path: Path) -> None:
    shard = holey_shard(tmp_path / "shard.h5", rows=90)
    settings = make_settings("sshmvae-kl", shard, window=40)
    data = load([settings], [shard], CPU)
    step = make_step([settings], shard)
    for number in range(2 * step.batches.per_epoch):
        step.batches.load(number)
        for index in (step.batches.index_l, step.batches.index_u):
            assert index is not None
            x, rows = step.data.x(index), step.data.training_rows(index)[0].numpy()
            assert isinstance(x, Incomplete)
            for name, values in x.items():
                np.testing.assert_array_equal(present_rows(x, name)[0], shard.train.has(name)[rows])
                np.testing.assert_array_equal(values[0], shard.train.features(name)[rows])
    blocks = list(data.training_features(0))
    for name in blocks[0]:
        there = torch.cat([block.present[name] for block in blocks if isinstance(block, Incomplete)])
        np.testing.assert_array_equal(there, shard.train.has(name))
    data.close()
    step.data.close()


@pytest.mark.parametrize("model", ["sshmvae-kl", "sshmvae", "jmvae-kl"])
def test_replicas_of_a_stack_do_not_notice_each_other(model: str, tmp_path: Path) -> None:
    shards = [holey_shard(tmp_path / f"{rows}.h5", rows=rows, split=split) for split, rows in enumerate((60, 48))]
    terms = {**TERMS, "onset": 0} if model != "jmvae-kl" else {}
    stack = [make_settings(model, shard, seed=seed, **terms) for seed, shard in enumerate(shards)]
    together = make_step(stack, *shards)
    for number in range(6):
        together(number)
    for replica, (settings, shard) in enumerate(zip(stack, shards, strict=True)):
        alone = make_step([settings], shard)
        for number in range(6):
            alone(number)
        for name, tensor in alone.model.state_dict().items():
            torch.testing.assert_close(
                together.model.state_dict()[name][replica], tensor[0], rtol=1e-3, atol=1e-4, msg=name
            )


def test_without_a_test_part_a_model_trains_and_has_no_scores(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", test=None)
    (run,) = run_stack(tmp_path / "runs", [make_settings("sshmvae-kl", shard)], [shard])
    assert run.result().scores == ()
    assert run.result().elbo is None
    assert {reference.left_out for reference in references(run.settings, shard)} == {"the data has no test part"}


@pytest.mark.parametrize("model", CO_TRAINED)
def test_co_training_says_what_it_cannot_do(model: str, tmp_path: Path) -> None:
    shard = holey_shard(tmp_path / "shard.h5")
    with pytest.raises(UsageError, match="needs every modality in every row, and some rows lack x, w, v"):
        run_stack(tmp_path / "runs", [make_settings(model, shard)], [shard])
    shard = make_shard(tmp_path / "untested.h5", test=None)
    with pytest.raises(UsageError, match="needs a test part"):
        run_stack(tmp_path / "untested", [make_settings(model, shard)], [shard])


def test_references_see_the_mean_of_what_is_missing_and_count_the_same_rows(tmp_path: Path) -> None:
    shard = holey_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae-kl", shard, labels=30)
    for reference in references(settings, shard):
        by_given = {score.given: score for score in reference.scores}
        for m in THREE:
            assert by_given[m.name].examples == shard.test.has(m.name).sum()
            assert by_given[m.name].accuracy > 0.9
        assert by_given["x+w+v"].examples == 30


# --- what data suggests ----------------------------------------------------------------------------------------------


def settings_of(shard: Shard, **values: Any) -> Settings:
    (job,) = plan("sshmvae-kl", [shard], values=values)
    return job.settings


def test_recommended_settings_combine_encoders_where_few_rows_have_everything(tmp_path: Path) -> None:
    complete = settings_of(make_shard(tmp_path / "complete.h5"), labels=9)
    assert (complete.pooling, complete.joint_encoder) == ("geometric", True)
    holey = holey_shard(tmp_path / "holey.h5")
    share = np.logical_and.reduce([holey.train.has(m.name) for m in THREE]).mean()
    assert share < 0.5
    settings = settings_of(holey, labels=9)
    assert (settings.pooling, settings.joint_encoder) == ("product", False)
    one = clusters("train", turns(40), (X, W))
    one.features = {"x": np.asarray(one.features["x"]), "w": np.asarray(one.features["w"]).copy()}
    one.features["w"][:5] = 0
    one.present = {"w": np.arange(40) >= 5}
    settings = settings_of(make_shard(tmp_path / "few.h5", train=one), labels=9)
    assert (settings.pooling, settings.joint_encoder) == ("product", True)


def test_labels_that_are_there_are_used(tmp_path: Path) -> None:
    some = clusters("train", turns(60), (X, W))
    some.labels = np.where(np.arange(60) < 30, some.labels, -1)
    assert settings_of(make_shard(tmp_path / "some.h5", train=some)).labels == "all"


def test_the_prior_of_the_labelled_rows_or_a_given_one(tmp_path: Path) -> None:
    odd = clusters("train", [0] * 40 + [1] * 12 + [2] * 8 + [-1] * 20, (X, W))
    shard = make_shard(tmp_path / "odd.h5", train=odd)

    def prior(value: Any) -> Tensor | None:
        settings = settings_of(shard, prior=value)
        return label_prior([settings], make_data([settings], shard), CPU).log

    assert prior("uniform") is None
    for value, expected in (("labelled", np.array([41, 13, 9]) / 63), ([0.5, 0.25, 0.25], [0.5, 0.25, 0.25])):
        log_p = prior(value)
        assert log_p is not None
        np.testing.assert_allclose(log_p[0].exp(), expected, rtol=1e-6)
    for wrong in ([0.5, 0.5], [0.5, 0.5, 0.5]):
        with pytest.raises(UsageError, match="for 3 classes"):
            prior(wrong)
