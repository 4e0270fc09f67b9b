"""mmssl from Python: a shard written, a model trained and evaluated, without the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmssl
from tests.support.small_networks import SSHMVAE_KL
from tests.support.small_shards import part_data


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    modalities = [mmssl.Modality("x", 4, "bernoulli"), mmssl.Modality("w", 3, "nonnegative")]
    mmssl.write_shard(
        tmp_path / "mine.h5", dataset="mine", classes=["cup", "bowl", "hat"], modalities=modalities,
        train=part_data("train", 40), test=part_data("test", 20, seed=1),
    )  # fmt: skip
    return tmp_path / "mine.h5"


SMALL: dict[str, Any] = {"networks": SSHMVAE_KL, "labels": 6, "epochs": 2, "batch_size": 8, "iterations": 2}


def test_a_model_is_trained_and_evaluated_in_two_calls(shard: Path, tmp_path: Path) -> None:
    runs = mmssl.train("sshmvae-kl", shard, out=tmp_path / "runs", seeds=(0, 1), device="cpu", **SMALL)
    assert [run.settings.seed for run in runs] == [0, 1]
    assert all(run.done and run.folder.parent == tmp_path / "runs" for run in runs)
    result = mmssl.evaluate(runs[0], device="cpu")
    assert isinstance(result, mmssl.Evaluation)
    assert result == mmssl.evaluate(str(runs[0].folder), device="cpu")
    assert [score.given for score in result.scores] == ["x", "w", "x+w"]
    kept = runs[0].result()  # of a stack of two, and so with other last digits
    assert [score.accuracy for score in result.scores] == [score.accuracy for score in kept.scores]
    assert result.elbo == pytest.approx(kept.elbo, rel=1e-5)
    assert mmssl.evaluate(runs[0], device="cpu", samples=3) != result
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    again = mmssl.train(
        "sshmvae-kl", mmssl.Shard.open(shard), out=tmp_path / "runs", seeds=(0, 1), device="cpu", **SMALL
    )
    assert [run.folder for run in again] == [run.folder for run in runs]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before


def test_errors_are_one_family_with_a_sentence_and_a_hint(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(mmssl.MmsslError, match="did you mean ssmvae") as caught:
        mmssl.train("ssmvea", shard, out=tmp_path / "runs")
    assert "sshmvae" in str(caught.value.hint)
    with pytest.raises(mmssl.MmsslError, match="there is no setting 'epoch'"):
        mmssl.train("ssmvae", shard, out=tmp_path / "runs", epoch=3)
    with pytest.raises(mmssl.MmsslError, match=r"absent\.h5"):
        mmssl.train("ssmvae", tmp_path / "absent.h5")
    with pytest.raises(mmssl.MmsslError, match="holds no run"):
        mmssl.evaluate(tmp_path / "nowhere")
    assert not (tmp_path / "runs").exists()


def test_public_names_are_those_that_are_listed() -> None:
    for name in mmssl.__all__:
        assert getattr(mmssl, name).__name__ == name
    assert set(dir(mmssl)) == set(mmssl.__all__)
    with pytest.raises(AttributeError, match=r"mmssl has no public name 'fit'; it has .*train"):
        _ = mmssl.fit


def test_features_come_back_as_they_were_written(shard: Path) -> None:
    opened = mmssl.Shard.open(shard)
    assert np.array_equal(opened.train.features("x"), np.asarray(part_data("train", 40).features["x"]))
