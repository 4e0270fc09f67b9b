"""The schedule is a function of the settings and the number of steps."""

import math
from typing import Any

import pytest

from tests.support.training import NETWORKS
from trainer.settings.run_settings import Settings, build
from trainer.training.schedule import Schedule


def settings(**changes: Any) -> Settings:
    values = {"model": "ssmvae", "data": "none", "labels": 3, "epochs": 1, "batch_size": 2, "learning_rate": 0.5}
    return build(values | {"networks": NETWORKS["ssmvae"]} | changes)


def test_without_more_settings_everything_is_the_papers() -> None:
    schedule = Schedule(settings(), 10)
    assert schedule.onset == 0
    assert [schedule.learning_rate(step) for step in range(10)] == [0.5] * 10
    assert all(schedule.terms_on(step) for step in range(10))
    assert [schedule.ema_weight(step) for step in range(10)] == [1.0] * 10  # the average is the weights themselves


@pytest.mark.parametrize(("share", "total", "onset"), [(0.6, 10, 6), (0.5, 7, 4), (0.01, 10, 1), (0.99, 10, 10)])
def test_the_onset_is_the_first_step_after_a_share_of_the_training(share: float, total: int, onset: int) -> None:
    schedule = Schedule(settings(onset=share, mean_alpha=1), total)
    assert schedule.onset == onset
    assert [schedule.terms_on(step) for step in range(total)] == [step >= onset for step in range(total)]


def test_the_learning_rate_falls_along_half_a_cosine_from_the_onset_on() -> None:
    schedule = Schedule(settings(schedule="cosine", onset=0.5), 8)
    rates = [schedule.learning_rate(step) for step in range(8)]
    assert rates[:5] == [0.5] * 5
    assert rates[4:] == pytest.approx([0.25 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    whole = Schedule(settings(schedule="cosine"), 8)
    assert whole.learning_rate(0) == 0.5
    assert whole.learning_rate(4) == pytest.approx(0.25)
    assert whole.learning_rate(8) == pytest.approx(0)


def test_the_average_forgets_its_first_weights_quickly_and_restarts_at_the_onset() -> None:
    schedule = Schedule(settings(averaging=0.99, onset=0.5), 4000)
    weights = [schedule.ema_weight(step) for step in range(4000)]
    assert weights[0] == weights[2000] == pytest.approx(0.9)
    assert weights[:1999] == sorted(weights[:1999], reverse=True)
    assert weights[1999] == weights[3999] == pytest.approx(0.01)
    assert weights[2000:] == weights[:2000]
