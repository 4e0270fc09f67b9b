"""Settings in words."""

from tests.support.training import NETWORKS
from trainer.settings.describe import names
from trainer.settings.run_settings import Settings, build


def settings(**changes: object) -> Settings:
    values = {"model": "m2", "data": "small", "labels": 3, "epochs": 1, "batch_size": 2, "learning_rate": 1e-3}
    return build(values | {"networks": NETWORKS["m2"]} | changes)


def test_what_is_common_is_said_once_and_the_rest_tells_them_apart() -> None:
    common, labels = names([settings(), settings(alpha=10.0)])
    assert common == "m2, small, 3 labels, 1 epoch"
    assert labels == ["", "alpha 10"]


def test_settings_that_look_alike_are_told_apart_by_a_value_or_numbered() -> None:
    assert names([settings(batch_size=2), settings(batch_size=4)])[1] == ["batch size 2", "batch size 4"]
    assert names([settings(seed=0), settings(seed=1)])[1] == ["#1", "#2"]
    assert names([settings(seed=0), settings(alpha=10.0), settings(seed=1)])[1] == ["#1", "alpha 10", "#3"]
