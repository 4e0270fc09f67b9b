"""The recommended settings: valid for every generative model and any data, and the default where they should be."""

import re
from pathlib import Path

import pytest

from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import Distribution, Modality
from tests.support.training import make_shard
from trainer.jobs.plan import plan
from trainer.models.factory import Factory
from trainer.models.registry import card, cards
from trainer.nn.labels import LabelRule
from trainer.nn.rng import Noise
from trainer.settings.presets import preset_values
from trainer.settings.recommended import recommended, terms
from trainer.settings.run_settings import build


@pytest.mark.parametrize("name", [entry.name for entry in cards() if entry.is_generative])
@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_the_recommended_settings_are_settings_of_every_generative_model(name: str, modalities: int) -> None:
    seen = tuple(Modality(f"m{n}", 5, "bernoulli") for n in range(modalities))
    values, usual = recommended(name, 1437, seen), terms(name, modalities)
    settings = build(preset_values("mnist", name) | values | {"model": name, "data": "some"})
    assert settings.beyond() == {term: value for term, value in usual.items() if term != "alpha"}
    assert ("onset" in values) == card(name).learns_labels
    assert (settings.alpha == usual["alpha"]) if card(name).learns_labels else (settings.alpha == 1)


@pytest.mark.parametrize("name", [entry.name for entry in cards() if entry.is_generative])
@pytest.mark.parametrize("distribution", ["bernoulli", "nonnegative", "gaussian"])
def test_the_recommended_networks_fit_any_data_and_grow_with_it(name: str, distribution: Distribution) -> None:
    seen = (Modality("x", 5, distribution), Modality("w", 3, distribution))
    widths = []
    for rows in (3, 700, 1437, 60_000, 10_000_000):
        values = recommended(name, rows, seen)
        settings = build(preset_values("mnist", name) | values | {"model": name, "data": "some"})
        assert 32 <= settings.batch_size <= 512
        widths.append(max(int(units) for text in settings.networks.values() for units in re.findall(r"D(\d+)BR", text)))
        Factory(settings.networks, seen, 4, Noise([0]), LabelRule("gumbel", 0.1))
    assert widths == sorted(widths)
    assert (widths[0], widths[2], widths[-1]) == (128, 128, 512)


@pytest.mark.parametrize(
    ("model", "modalities", "rows", "distribution", "joint"),
    [
        ("sshmvae-kl", 2, 1437, "bernoulli", "(X-D128BR-D128BR-RowDropout0.15)-D128BR, D32"),
        ("sshmvae-kl", 1, 1437, "bernoulli", "(X-D128BR-D128BR)-D128BR, D32"),
        ("sshmvae-kl", 2, 60_000, "bernoulli", "(X-D512BR-D512BR)-D512BR, D128"),
        ("sshmvae-kl", 2, 720, "nonnegative", "(X-D128BR), D64"),
        ("sshmvae", 2, 1437, "bernoulli", "(X-D128BR-D128BR-RowDropout0.15)-D128BR, D32"),
        ("ssmvae", 2, 1437, "bernoulli", "(X-D128BR-D128BR-RowDropout0.15)-D128BR, DK"),
        ("m2", 2, 1437, "bernoulli", "(X-D128BR-D128BR)-D128BR, DK"),
        ("jmvae", 2, 1437, "bernoulli", "(X-D128BR-D128BR)-D128BR, D32"),
    ],
)
def test_only_little_data_is_kept_from_being_learned_by_heart(
    model: str, modalities: int, rows: int, distribution: Distribution, joint: str
) -> None:
    seen = tuple(Modality(f"m{n}", 5, distribution) for n in range(modalities))
    networks = recommended(model, rows, seen)["networks"]
    assert next(networks[name] for name in ("q(a|X)", "q(y|X)", "q(z|X)") if name in networks) == joint


def test_our_settings_are_the_default_except_on_the_papers_own_data_and_give_each_model_what_it_can_take(
    tmp_path: Path,
) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    ours = plan("sshmvae-kl", [shard])[0].settings
    assert ours == plan("sshmvae-kl", [shard], preset="recommended")[0].settings
    assert {"propagation", "agreement", "onset"} <= ours.beyond().keys()
    papers = plan("sshmvae-kl", [shard], preset="paper")[0].settings
    assert papers.beyond() == {}
    assert papers.alpha == 1
    on_its_own = make_shard(tmp_path / "own.h5", dataset="hm-mnist")
    assert plan("sshmvae-kl", [on_its_own])[0].settings == plan("sshmvae-kl", [on_its_own], preset="paper")[0].settings
    for model in ("jmvae", "jmvae-kl", "ssmvae", "sshmvae"):
        assert plan(model, [shard])[0].settings.beyond()
    (single,) = plan("m2", [shard], values={"modalities": ("x",)})
    assert not {"partial_smoothness", "partial_alpha", "agreement"} & single.settings.beyond().keys()
    chosen = plan("sshmvae-kl", [shard], values={"schedule": "constant"})[0].settings
    assert "schedule" not in chosen.beyond()  # what is asked for goes before the preset


def test_what_has_no_recommended_settings_gets_the_papers_or_is_told(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    for model, values in (("sshmvae-kl", {"objective": "classifier"}), ("ct-svm", {})):
        assert plan(model, [shard], values=values)[0].settings.beyond() == {}
        with pytest.raises(UsageError, match="has no settings for"):
            plan(model, [shard], preset="recommended", values=values)
