"""What stops a run: values that overflow, a learning rate that is too large."""

from pathlib import Path
from typing import Any, cast

import pytest
from numpy.typing import NDArray

from pipeline.runtime.errors import Interrupted, TrainingError
from tests.support.steps import take
from tests.support.training import (
    StopAfter,
    V,
    X,
    clusters,
    make_settings,
    make_shard,
    make_step,
    run_stack,
    turns,
)
from trainer.training.checkpoints import save
from trainer.training.run_folder import Run


def test_a_value_that_overflows_stops_the_run_and_is_named(tmp_path: Path) -> None:
    clean = make_shard(tmp_path / "clean.h5", (X, V))
    train = clusters("train", turns(40), (X, V))
    settings = make_settings("ssmvae", clean, seed=3)
    stream = make_step([settings], clean).batches.unlabelled[0]
    late = int(stream.batch(3)[0])  # an unlabelled row that the fourth step meets first
    cast(NDArray[Any], train.features["v"])[late, 1] = 1e30  # finite, but its square is not
    broken = make_shard(tmp_path / "broken.h5", (X, V), train=train)
    stack = [make_settings("ssmvae", broken, seed=3), make_settings("ssmvae", clean, seed=4)]
    given = [broken, clean]
    with pytest.raises(Interrupted):
        run_stack(tmp_path, stack, given, StopAfter(3))
    before = [(tmp_path / str(r) / "checkpoint.safetensors").read_bytes() for r in range(2)]
    for _ in range(2):
        progress = StopAfter()
        with pytest.raises(TrainingError) as caught:
            run_stack(tmp_path, stack, given, progress)
        assert progress.seen == []
        assert caught.value.message.startswith("training stopped: not finite: ")
        assert "'J' of seed 3" in caught.value.message
        assert "'U: log p(v|z,y)' of seed 3" in caught.value.message
        assert "seed 4" not in caught.value.message
        assert [(tmp_path / str(r) / "checkpoint.safetensors").read_bytes() for r in range(2)] == before
        assert [Run.open(tmp_path / str(r)).done for r in range(2)] == [False, False]


@pytest.mark.parametrize(
    ("rate", "epochs", "batch_size", "reason"),
    [
        (1e30, 2, 8, "training stopped: not finite: "),
        (
            1e39,
            1,
            40,
            "training stopped: not finite: the weights '",
        ),  # one step, whose terms are finite, and no weight after it
        (1e36, 1, 40, "the model's predictions from x are not numbers"),
    ],
)
def test_a_learning_rate_that_is_too_large(
    rate: float, epochs: int, batch_size: int, reason: str, tmp_path: Path
) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, V))
    settings = make_settings("sshmvae-kl", shard, learning_rate=rate, epochs=epochs, batch_size=batch_size, seed=7)
    with pytest.raises(TrainingError) as caught:
        run_stack(tmp_path, [settings], [shard])
    assert reason in caught.value.message
    assert "--lr" in str(caught.value.hint)
    assert not (tmp_path / "0" / "result.json").exists()


def test_a_stop_does_not_save_what_is_not_finite(tmp_path: Path) -> None:
    """On a device that is looked at only once an epoch, a checkpoint is a reason to look, too."""
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("ssmvae", shard)
    step = take(make_step([settings], shard), 1)
    run = Run(tmp_path / "run", settings)
    save([run], step, 1)
    before = (run.folder / "checkpoint.safetensors").read_bytes()
    step(1)
    step.terms.finite[step.terms.names.index("U"), 0] = False
    with pytest.raises(TrainingError, match="'U' of seed 0"):
        save([run], step, 2)
    assert (run.folder / "checkpoint.safetensors").read_bytes() == before
