"""What holds for the card of every model, so that a new one is only its file and a line in the registry."""

import pytest

from pipeline.runtime.errors import UsageError
from trainer.evaluation.metrics import COMPLETION_TITLES
from trainer.models.registry import card, cards, model_names
from trainer.nn.notation import parse
from trainer.settings.names import PresetName
from trainer.settings.presets import PRESETS, preset_values
from trainer.settings.run_settings import Settings, build
from trainer.training.method import method_of

COLUMNS: tuple[PresetName, ...] = ("mnist", "rgbd")  # of the appendix
SECTION_4_2 = {"mnist": (512, 1e-3, 500), "rgbd": (128, 1e-4, 100)}  # batch size, learning rate, epochs


def test_names_and_titles_are_unique() -> None:
    assert [entry.name for entry in cards()] == list(model_names())
    assert len({entry.name for entry in cards()}) == len({entry.title for entry in cards()}) == len(cards())


def settings_of(name: str, preset: str) -> Settings:
    return build(preset_values(preset, name) | {"model": name, "data": "some"})


@pytest.mark.parametrize("name", model_names())
def test_what_holds_for_every_card(name: str) -> None:
    model_card = card(name)
    assert set(model_card.completions) <= COMPLETION_TITLES.keys() - {"none"}  # none at all where it sees one modality
    assert len(set(model_card.completions)) == len(model_card.completions)
    assert isinstance(model_card.learns_labels, bool)
    assert not model_card.has_beta or "encoders" in model_card.completions
    assert model_card.is_generative == (model_card.method is None)
    assert model_card.accepts is None or model_card.accepts <= accepted_names()
    assert model_card.presets.keys() <= set(PRESETS)
    assert model_card.networks.keys() == set(COLUMNS) if model_card.networks else not model_card.is_generative
    for networks in model_card.networks.values():
        assert networks.keys() == model_card.networks["mnist"].keys()
        assert all(parse(notation) for notation in networks.values())
    for preset in PRESETS:
        settings = settings_of(name, preset)
        assert settings.networks.keys() == model_card.networks.get("mnist", {}).keys()
        assert (settings.learns_labels, settings.has_beta) == (model_card.learns_labels, model_card.has_beta)
        assert method_of(settings).stacks == model_card.is_generative
    for column in COLUMNS:
        settings = settings_of(name, column)
        written = {network: str(parse(notation)) for network, notation in model_card.networks.get(column, {}).items()}
        assert settings.networks == written
        assert (settings.batch_size, settings.learning_rate) == SECTION_4_2[column][:2]
        assert settings.epochs == SECTION_4_2[column][2] or settings.turns == "rounds"


def accepted_names() -> set[str]:
    """Every name that a card can accept: of settings, and of settings in a group."""
    group = Settings.model_fields["cotraining"].annotation
    (rounds,) = (kind for kind in getattr(group, "__args__", ()) if hasattr(kind, "model_fields"))
    return {*Settings.model_fields, *(f"cotraining.{name}" for name in rounds.model_fields)}


def test_a_name_that_no_card_has() -> None:
    with pytest.raises(UsageError, match=r"^there is no model 'sshmvea'; did you mean sshmvae\?$") as caught:
        card("sshmvea")
    assert all(name in str(caught.value.hint) for name in model_names())
