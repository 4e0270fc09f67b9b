"""Settings: what is refused and in which words, names and fingerprints, the presets, and the plan of a command."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Modality
from tests.support.training import MODELS, NETWORKS, V, W, X, clusters, make_shard, turns
from trainer.jobs.plan import folders_of, plan
from trainer.models.registry import card, cards
from trainer.nn.notation import parse
from trainer.settings.presets import PRESETS, preset_values
from trainer.settings.run_settings import CoTraining, Settings, build, differences
from trainer.settings.sources import read_assignments, read_toml

GOOD: dict[str, Any] = {
    "model": "sshmvae",
    "data": "clusters",
    "labels": 6,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "networks": NETWORKS["sshmvae"],
}


def refusal(values: dict[str, Any]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        build(values, source="run.toml")
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("run.toml: ")
    return caught.value


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_unknown_setting() -> None:
    error = refusal(GOOD | {"learning-rate": 1})
    assert error.message == "run.toml: there is no setting 'learning-rate'"
    assert "learning_rate" in str(error.hint)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "vae"),
        ("labels", -3),
        ("labels", "some"),
        ("labels", 2.5),
        ("seed", -1),
        ("seed", 0.5),
        ("alpha", -0.1),
        ("alpha", float("nan")),
        ("beta", float("inf")),
        ("label_estimator", "soft"),
        ("temperature", 0),
        ("temperature", float("nan")),
        ("epochs", 0),
        ("batch_size", 0),
        ("labelled_batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", float("inf")),
        ("precision", "fp16"),
        ("iterations", 0),
        ("samples", -1),
        ("networks", 3),
        ("split", "first"),
    ],
)
def test_a_value_that_cannot_be(name: str, value: object) -> None:
    error = refusal(GOOD | {name: value})
    assert error.message.startswith(f"run.toml: {name}")
    assert repr(value) in error.message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cotraining": {"k_best": 1}}, "sshmvae is not co-trained, so it takes no [cotraining]"),
        ({"model": "ct-svm"}, "ct-svm needs the settings of its rounds in [cotraining]"),
        ({"model": "cotraining", "cotraining": {"k_best": 0}}, "cotraining.k_best: "),
        (
            {"model": "ct-svm", "cotraining": {"k_best": 1, "addition": 1}},
            "there is no setting 'cotraining.addition'",
        ),
        ({"objective": "bounds"}, "objective: "),
        ({"model": "jmvae", "objective": "classifier"}, "jmvae has no classifier that can be trained without a bound"),
    ],
)
def test_what_does_not_go_together(values: dict[str, Any], message: str) -> None:
    assert message in refusal(GOOD | values).message


@pytest.mark.parametrize("name", ["model", "data", "labels", "epochs", "batch_size", "learning_rate", "networks"])
def test_a_value_that_is_missing(name: str) -> None:
    error = refusal({key: value for key, value in GOOD.items() if key != name})
    assert error.message.startswith(f"run.toml: {name}: Field required")


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("a-Q8, DK", "'Q8' is not a layer"),
        ("a-D8BR", "expected ,, got the end"),
        ("a-D8BR, D8BR", "it must end in a plain linear output"),
        ("a-D0, DK", "'D0' is not a layer"),
        ("a-DK, DK", "DK can only be the output"),
        ("(a, y-D8BR, DK", "expected ), got the end"),
        ("", "expected more, got the end"),
        ("a, DK, D3", "unexpected ',' after the output"),
    ],
)
def test_a_network_not_in_the_notation(network: str, why: str) -> None:
    error = refusal(GOOD | {"networks": GOOD["networks"] | {"q(y|a)": network}})
    assert error.message.startswith(f"run.toml: networks: the network '{network}' is not in the notation: {why}")
    assert "an example: " in str(error.hint)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build(GOOD).seed = 3  # type: ignore[misc]


def test_a_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('epochs = 3\n[networks]\n"q(y|a)" = "a, DK"\n')
    assert read_toml(path) == {"epochs": 3, "networks": {"q(y|a)": "a, DK"}}
    path.write_text("epochs = = 3")
    with pytest.raises(DataError, match="cannot read the settings file") as caught:
        read_toml(path)
    assert str(path) in caught.value.message
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="begins as UTF-16-LE text, but is cut short"):
        read_toml(path)
    with pytest.raises(DataError, match="there is no settings file"):
        read_toml(tmp_path / "none.toml")


# --- names and fingerprints ------------------------------------------------------------------------------------------


def test_settings_survive_json_and_have_one_fingerprint() -> None:
    settings = build(GOOD)
    again = Settings.model_validate(json.loads(settings.model_dump_json()))
    assert again == settings
    assert again.fingerprint() == settings.fingerprint()
    spaced = GOOD["networks"] | {"q(z|a,y)": "( a,  y )-D8BR,D2"}
    assert build(GOOD | {"networks": spaced}).fingerprint() == settings.fingerprint()


def test_every_setting_changes_the_fingerprint_and_so_the_name() -> None:
    changes: dict[str, Any] = {
        "model": "sshmvae-kl", "data": "other", "digest": "0", "split": 1, "modalities": ("x",), "labels": "all",
        "seed": 1, "alpha": 2, "beta": 2, "label_estimator": "exact", "temperature": 0.2, "epochs": 3, "batch_size": 9,
        "labelled_batch_size": 9, "window": 99, "learning_rate": 1e-2, "precision": "fp32", "iterations": 9,
        "samples": 1, "partial_alpha": 1, "consistency": 1, "smoothness": 1, "radius": 1, "averaging": 0.9,
        "information": 1, "agreement": 1, "mean_alpha": 1, "onset": 0.5, "propagation": 1,
        "neighbours": 9, "partial_smoothness": 1, "prior": "labelled", "pooling": "product", "joint_encoder": False,
        "schedule": "cosine", "networks": GOOD["networks"] | {"q(y|a)": "a, DK"}, "objective": "classifier",
        "answers": ((3, "a"),), "held_out": (0, 2), "fused": True,
    }  # fmt: skip
    assert {*changes, "cotraining"} == Settings.model_fields.keys()
    settings = build(GOOD)
    for name, value in changes.items():
        changed = build(GOOD | {name: value})
        assert changed.fingerprint() != settings.fingerprint()
        assert changed.name() != settings.name()
        assert [line.split()[0] for line in differences(changed, settings)] == [name]


def test_every_setting_of_the_rounds_changes_the_fingerprint() -> None:
    changes: dict[str, Any] = {
        "k_best": 3, "pool": 9, "cost": 2, "scale": "features", "candidates": 7, "granularity": 2, "passes": 3,
        "least_steps": 9,
    }  # fmt: skip
    assert changes.keys() == CoTraining.model_fields.keys()
    values = GOOD | {"model": "cotraining", "networks": NETWORKS["cotraining"]}
    prints = {build(values | {"cotraining": {"k_best": 2} | change}).fingerprint() for change in [{}, *(
        {name: value} for name, value in changes.items()
    )]}  # fmt: skip
    assert len(prints) == 9


def test_the_fingerprint_is_over_all_settings_but_those_added_later_where_they_are_not_set() -> None:
    for values in (GOOD, GOOD | {"onset": 0.5}, GOOD | {"labels": "all"}, GOOD | {"answers": ((3, "a"),)}):
        unset = {"answers", "held_out", "fused"} - values.keys()
        content = build(values).model_dump(mode="json", exclude=unset)
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        assert build(values).fingerprint() == hashlib.sha256(text.encode()).hexdigest()


def test_the_name_says_what_a_run_is() -> None:
    settings = build(GOOD)
    assert settings.name() == f"clusters-sshmvae-labels-6-2-epochs-seed-0-{settings.fingerprint()[:8]}"
    other = build(
        GOOD | {"model": "sshmvae-kl", "modalities": ("x", "w"), "alpha": 0.5, "beta": 10, "split": 3, "seed": 7}
    )
    expected = "clusters-sshmvae-kl-x-w-labels-6-alpha-0.5-beta-10-split-3-2-epochs-seed-7"
    assert other.name() == f"{expected}-{other.fingerprint()[:8]}"


@pytest.mark.parametrize("dataset", ["../../elsewhere", "/etc/x", "..", ".hidden", "a b", "C:\\x"])
def test_the_name_is_one_visible_folder_whatever_the_data_set_is_called(dataset: str) -> None:
    name = build(GOOD | {"data": dataset}).name()
    assert Path(name).name == name
    assert not name.startswith(".")
    assert not set(name) & set(" \\:")


def test_what_can_be_stacked() -> None:
    key = build(GOOD).stack_key()
    for name, value in {"seed": 3, "split": 2, "digest": "1", "alpha": 3, "beta": 0}.items():
        assert build(GOOD | {name: value}).stack_key() == key
    for name, value in {
        "epochs": 3,
        "labels": 9,
        "learning_rate": 1,
        "label_estimator": "exact",
        "precision": "bf16",
    }.items():
        assert build(GOOD | {name: value}).stack_key() != key


# --- presets ---------------------------------------------------------------------------------------------------------


def test_the_models_are_those_that_settings_know() -> None:
    generative = [model.name for model in cards() if model.is_generative]
    assert set(MODELS) == set(generative)
    for model in generative:
        build(GOOD | {"model": model, "networks": NETWORKS[model]})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_complete_for_every_model(preset: str, model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, Modality("w", 6, "bernoulli")))
    (job,) = plan(model, [shard], preset=preset, values={"modalities": ("x",)} if model == "sdgm" else {})
    assert job.settings.networks.keys() == NETWORKS[model].keys()
    for notation in job.settings.networks.values():
        assert str(parse(notation)) == notation


def test_presets_by_value() -> None:
    mnist, rgbd, digits = (preset_values(name, "sshmvae-kl") for name in ("mnist", "rgbd", "digits"))
    assert [mnist[key] for key in ("labels", "epochs", "batch_size", "learning_rate")] == [100, 500, 512, 1e-3]
    assert [rgbd[key] for key in ("labels", "epochs", "batch_size", "learning_rate")] == ["shard", 100, 128, 1e-4]
    assert [digits[key] for key in ("labels", "epochs", "batch_size", "learning_rate")] == [100, 60, 128, 1e-3]
    assert digits["networks"] == mnist["networks"]


def test_unknown_models_and_presets() -> None:
    with pytest.raises(UsageError, match=r"^there is no model 'sshmvaekl'; did you mean sshmvae-kl\?$") as caught:
        card("sshmvaekl")
    assert all(model in str(caught.value.hint) for model in MODELS)
    with pytest.raises(UsageError, match=r"^there is no model '12345'$"):
        card("12345")
    with pytest.raises(UsageError, match=r"^there is no preset 'cifar'$"):
        preset_values("cifar", "sshmvae")


# --- the plan of a command -------------------------------------------------------------------------------------------


def test_a_plan_is_every_combination(tmp_path: Path) -> None:
    shards = [make_shard(tmp_path / f"{split}.h5", split=split) for split in (0, 4)]
    jobs = plan("sshmvae-kl", shards, values={"labels": 9}, seeds=(1, 2), alphas=(0.5,), betas=(0.1, 1, 10))
    combinations = [(job.settings.split, job.settings.seed, job.settings.alpha, job.settings.beta) for job in jobs]
    assert combinations == [(split, seed, 0.5, beta) for split in (0, 4) for seed in (1, 2) for beta in (0.1, 1, 10)]
    for job in jobs:
        assert job.shard is shards[job.settings.split == 4]
        assert job.settings.digest == job.shard.digest
        assert job.settings.labels == 9
    names = {path.name for path in folders_of(jobs, None, tmp_path / "runs")}
    assert len(names) == 12
    assert folders_of(jobs[:1], tmp_path / "mine", tmp_path / "runs") == [tmp_path / "mine"]
    assert {path.parent for path in folders_of(jobs, tmp_path / "mine", tmp_path / "runs")} == {tmp_path / "mine"}


def test_values_go_before_the_presets_and_networks_one_by_one(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (job,) = plan("sshmvae", [shard], preset="mnist", values={"epochs": 3, "networks": {"q(y|a)": "a-D9BR, DK"}})
    assert job.settings.epochs == 3
    assert job.settings.batch_size == 512
    assert job.settings.networks == preset_values("mnist", "sshmvae")["networks"] | {"q(y|a)": "a-D9BR, DK"}


def test_labels_that_the_shard_marks_are_taken_unless_others_are_asked_for(tmp_path: Path) -> None:
    train = clusters("train", turns(9), (X, W))
    train.labelled = np.asarray(train.labels) >= 0
    marked = make_shard(tmp_path / "marked.h5", train=train)
    assert plan("ssmvae", [marked], preset="mnist")[0].settings.labels == "shard"
    assert plan("ssmvae", [marked], preset="mnist", values={"labels": 6})[0].settings.labels == 6
    assert plan("ssmvae", [make_shard(tmp_path / "plain.h5")], preset="mnist")[0].settings.labels == 100


def test_the_preset_is_that_of_the_chosen_modalities(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    assert plan("ssmvae", [shard], preset="paper")[0].settings.batch_size == 512
    nonnegative = plan("ssmvae", [shard], preset="paper", values={"modalities": ("w",), "labels": 6})[0].settings
    assert (nonnegative.batch_size, nonnegative.learning_rate) == (128, 1e-4)


@pytest.mark.parametrize("model", [model for model in MODELS if not model.endswith("-kl")])
def test_beta_is_refused_where_there_are_no_encoders(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    with pytest.raises(UsageError, match=f"^{model} has no beta") as caught:
        plan(model, [shard], betas=(1.0,))
    assert caught.value.exit_code == 2


def test_plans_that_cannot_be(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V), train=clusters("train", turns(9), (X, W, V)))
    with pytest.raises(UsageError, match="sshmvae has no network 'q\\(b\\|X\\)'"):
        plan("sshmvae", [shard], values={"networks": {"q(b|X)": "X, D3"}})
    with pytest.raises(UsageError, match="networks: "):
        plan("sshmvae", [shard], values={"networks": "X, D3"})
    with pytest.raises(UsageError, match="no modality 'sound'"):
        plan("sshmvae", [shard], values={"modalities": ("sound",)})
    with pytest.raises(UsageError, match="modalities: Input should be a valid tuple"):
        plan("sshmvae", [shard], values={"modalities": 3})
    with pytest.raises(UsageError, match="there is no setting 'colour'"):
        plan("sshmvae", [shard], values={"colour": "red"})
    with pytest.raises(UsageError, match="there is no preset 'cifar'"):
        plan("sshmvae", [shard], preset="cifar")


def test_assignments_are_toml_values_or_words() -> None:
    given = ["consistency=1", "radius = 0.5", "label_estimator=exact", 'modalities=["x", "w"]', "schedule='cosine'"]
    assert read_assignments(given) == {
        "consistency": 1, "radius": 0.5, "label_estimator": "exact", "modalities": ["x", "w"], "schedule": "cosine",
    }  # fmt: skip
    for bad in ("consistency", "=1", "a b=1", "radius="):
        with pytest.raises(UsageError, match="--set takes NAME=VALUE"):
            read_assignments([bad])
