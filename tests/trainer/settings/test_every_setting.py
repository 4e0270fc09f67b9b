"""Every setting is taken from a file and from `--set`, or is refused in a sentence; none is dropped in silence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Shard
from tests.support.training import NETWORKS, ROUNDS, make_shard
from trainer.jobs.plan import plan
from trainer.settings.run_settings import CoTraining, Settings
from trainer.settings.sources import merged, read_assignments, read_toml

# For each setting: the model, its value as TOML, and the value in the settings that come of it.
TAKEN: dict[str, tuple[str, str, Any]] = {
    "model": ("ssmvae", '"ssmvae"', "ssmvae"),
    "data": ("ssmvae", '"clusters"', "clusters"),
    "digest": ("ssmvae", '""', ...),
    "split": ("ssmvae", "7", 7),
    "modalities": ("ssmvae", '["w"]', ("w",)),
    "labels": ("ssmvae", '"all"', "all"),
    "answers": ("ssmvae", '[[3, "cup"], [5, "?"]]', ((3, "cup"), (5, "?"))),
    "held_out": ("ssmvae", "[1, 3]", (1, 3)),
    "seed": ("ssmvae", "7", 7),
    "alpha": ("ssmvae", "3", 3.0),
    "beta": ("sshmvae-kl", "3", 3.0),
    "label_estimator": ("ssmvae", '"exact"', "exact"),
    "temperature": ("ssmvae", "0.5", 0.5),
    "prior": ("ssmvae", "[0.5, 0.25, 0.25]", (0.5, 0.25, 0.25)),
    "pooling": ("sshmvae-kl", '"product"', "product"),
    "joint_encoder": ("sshmvae-kl", "false", False),
    "objective": ("ssmvae", '"classifier"', "classifier"),
    "epochs": ("ssmvae", "3", 3),
    "batch_size": ("ssmvae", "9", 9),
    "labelled_batch_size": ("ssmvae", "9", 9),
    "window": ("ssmvae", "64", 64),
    "learning_rate": ("ssmvae", "0.5", 0.5),
    "precision": ("ssmvae", '"bf16"', "bf16"),
    "fused": ("ssmvae", "true", True),
    "iterations": ("ssmvae", "3", 3),
    "samples": ("ssmvae", "3", 3),
    "propagation": ("ssmvae", "3", 3.0),
    "neighbours": ("ssmvae", "3", 3),
    "mean_alpha": ("ssmvae", "3", 3.0),
    "partial_alpha": ("ssmvae", "3", 3.0),
    "consistency": ("ssmvae", "3", 3.0),
    "smoothness": ("ssmvae", "3", 3.0),
    "partial_smoothness": ("ssmvae", "3", 3.0),
    "radius": ("ssmvae", "3", 3.0),
    "information": ("ssmvae", "3", 3.0),
    "agreement": ("ssmvae", "3", 3.0),
    "onset": ("ssmvae", "0.5", 0.5),
    "averaging": ("ssmvae", "0.5", 0.5),
    "schedule": ("ssmvae", '"constant"', "constant"),
    "networks": ("ssmvae", '{ "q(y|X)" = "(X-D5BR), DK" }', "(X-D5BR), DK"),
    "cotraining": ("ct-svm", "{ pool = 7 }", 7),
}
REFUSED = {  # what is not true of the model, the data or the number of classes, or would do nothing
    "model": ("ssmvae", '"m2"', "the settings are of the model 'm2', not of ssmvae"),
    "data": ("ssmvae", '"other"', "data 'other'"),
    "digest": ("ssmvae", '"0000"', "digest '0000'"),
    "split": ("ssmvae", "3", "split '3'"),
    "beta": ("ssmvae", "3", "ssmvae has no beta"),
    "pooling": ("ssmvae", '"product"', "ssmvae has no pooling"),
    "joint_encoder": ("m2", "false", "m2 has no joint_encoder"),
    "prior": ("ssmvae", "[0.5, 0.5]", "the prior has 2 probabilities that sum to 1, for 3 classes"),
    "cotraining": ("ssmvae", "{ k_best = 3 }", "ssmvae is not co-trained"),
    "answers": ("ssmvae", '[[5, "a"], [3, "a"]]', "answers: each row has one answer, and rows are in ascending order"),
    "held_out": ("ssmvae", "[3, 3]", "held_out: there is no part 3 of 3: parts count from 0"),
    "alpha": ("ct-svm", "3", "ct-svm has no setting 'alpha'"),
    "epochs": ("ssmvae", "true", "epochs: it is a number or a word, not true"),
    "seed": ("ssmvae", "-1", "seed: "),
    "modalities": ("ssmvae", '["depth"]', "has no modality 'depth'"),
    "networks": ("ssmvae", '{ "q(z|X,y)" = "(y, X)-D8BR, D4", "p(x|z,y)" = "(z, y, b), Dx" }', "names the input 'b'"),
}


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    return make_shard(tmp_path_factory.mktemp("data") / "clusters.h5", split=7)


def planned(model: str, shard: Shard, values: dict[str, Any]) -> Settings:
    usual: dict[str, Any] = {} if model == "ct-svm" else {"networks": NETWORKS[model]}
    return plan(model, [shard], preset="paper" if model == "ct-svm" else None, values=merged(usual, values))[0].settings


def test_no_setting_is_forgotten_here() -> None:
    assert set(TAKEN) == set(Settings.model_fields)


@pytest.mark.parametrize("name", TAKEN)
def test_a_file_and_set_are_taken(name: str, shard: Shard, tmp_path: Path) -> None:
    model, text, expected = TAKEN[name]
    (tmp_path / "mine.toml").write_text(f"{name} = {text}\n")
    from_file, from_set = read_toml(tmp_path / "mine.toml"), read_assignments([f"{name}={text}"])
    assert from_file == from_set
    value = getattr(planned(model, shard, from_set), name)
    if name == "networks":
        value = value["q(y|X)"]
    if name == "cotraining":
        value = value.pool
    assert value == (shard.digest if expected is ... else expected)


@pytest.mark.parametrize("name", REFUSED)
def test_or_refused_in_a_sentence(name: str, shard: Shard) -> None:
    model, text, words = REFUSED[name]
    with pytest.raises(UsageError) as caught:
        planned(model, shard, read_assignments([f"{name}={text}"]))
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", CoTraining.model_fields)
def test_a_name_may_lead_into_a_table(name: str) -> None:
    assert read_assignments([f"cotraining.{name}=3"]) == {"cotraining": {name: 3}}
    both = merged({"cotraining": ROUNDS}, read_assignments([f"cotraining.{name}=3", "cotraining.pool=9"]))
    assert both["cotraining"] == ROUNDS | {name: 3} | {"pool": 9}


def test_what_an_option_names_goes_before_the_settings(shard: Shard) -> None:
    values = {"seed": 7, "alpha": 3.0, "networks": NETWORKS["ssmvae"]}
    assert [job.settings.seed for job in plan("ssmvae", [shard], values=values)] == [7]
    jobs = plan("ssmvae", [shard], values=values, seeds=(1, 2), alphas=(5,))
    assert [(job.settings.seed, job.settings.alpha) for job in jobs] == [(1, 5), (2, 5)]
    assert plan("ssmvae", [shard], values={"modalities": "w, x"})[0].settings.modalities == ("w", "x")


def test_a_run_s_own_settings_plan_the_same_run(shard: Shard) -> None:
    first = planned("sshmvae-kl", shard, {"seed": 3})
    values = {name: value for name, value in first.model_dump(mode="json").items() if value is not None}
    assert plan("sshmvae-kl", [shard], values=values)[0].settings == first


VALUES = st.one_of(
    st.integers(-3, 300), st.floats(-1, 3), st.booleans(), st.sampled_from(["all", "exact", "x", "", "cosine"]),
    st.lists(st.sampled_from(["x", "w"]), max_size=2), st.dictionaries(st.sampled_from(["a", "pool"]), st.integers()),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "memory_limit"]), VALUES, max_size=3))
def test_random_settings_are_taken_as_they_are_or_refused(shard: Shard, values: dict[str, Any]) -> None:
    try:
        settings = planned("ssmvae", shard, values)
    except UsageError:
        return
    for name in values.keys() - {"memory_limit", "modalities", "networks", "digest"}:
        taken = getattr(settings, name)
        assert (list(taken) if isinstance(taken, tuple) else taken) == values[name], name
