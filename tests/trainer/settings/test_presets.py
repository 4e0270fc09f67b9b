"""The appendix's table, typed from the paper, beside the presets: both columns, written out for the paper's data."""

from pathlib import Path

import pytest

from pipeline.datasets import digits
from pipeline.shards.schema import VALIDATION, Distribution
from pipeline.shards.shard import Modality, Shard
from tests.support.small_shards import MakeShard
from trainer.models.factory import Factory
from trainer.models.registry import card, cards
from trainer.nn.labels import LabelRule
from trainer.nn.notation import Notation, parse
from trainer.nn.rng import Noise
from trainer.settings.presets import PAPER_DATA, PRESETS, fitting_preset, preset_values
from trainer.settings.run_settings import build

HALVES = (Modality("x", 392, "bernoulli"), Modality("w", 392, "bernoulli"))
NOISY = (Modality("x", 784, "bernoulli"), Modality("w", 784, "bernoulli"))
RGBD = (Modality("x", 4096, "nonnegative"), Modality("w", 4096, "nonnegative"))

GENERATIVE = [model.name for model in cards() if model.is_generative]

# distribution: (MNIST, RGB-D)
SSMVAE_TABLE = {
    "p(x|z,y)": (
        "(z,y)-D512BR-D512BR, Bernoulli D392 or D784",
        "(z,y)-D1024BR-D1024BR, softplus D4096, negative squared error",
    ),
    "p(w|z,y)": (
        "(z,y)-D512BR-D512BR, Bernoulli D392 or D784",
        "(z,y)-D1024BR-D1024BR, softplus D4096, negative squared error",
    ),
    "q(y|x,w)": (
        "(x-D512BR-D512BR, w-D512BR-D512BR)-D512BR, D10",
        "(x-D1024BR-D1024BR, w-D1024BR-D1024BR)-D1024BR-Dropout0.5, D51",
    ),
    "q(z|x,w,y)": (
        "(y, x-D512BR-D512BR, w-D512BR-D512BR)-D512BR, D64",
        "(y, x-D1024BR-D1024BR, w-D1024BR-D1024BR)-D1024BR, D1024",
    ),
}
SSHMVAE_TABLE = {
    "p(x|a)": (
        "a-D512BR-D512BR, Bernoulli D392 or D784",
        "a-D1024BR-D1024BR, softplus D4096, negative squared error",
    ),
    "p(w|a)": (
        "a-D512BR-D512BR, Bernoulli D392 or D784",
        "a-D1024BR-D1024BR, softplus D4096, negative squared error",
    ),
    "q(y|a)": ("a-D512BR, D10", "a-D1024BR-Dropout0.5, D51"),
    "q(a|x,w)": (
        "(x-D512BR-D512BR, w-D512BR-D512BR)-D512BR, D128",
        "(x-D1024BR, w-D1024BR), D1024",
    ),
    "p(a|z,y)": ("(z,y)-D512BR-D512BR, D128", "(z-D1024BR, y-D1024BR), D1024"),
    "q(z|a,y)": ("(a,y)-D512BR-D512BR, D64", "(a-D1024BR, y-D1024BR), D1024"),
}
ENCODER_TABLE = {
    "q(a|x)": ("x-D512BR-D512BR, D128", "x-D1024BR-D1024BR, D1024"),
    "q(a|w)": ("w-D512BR-D512BR, D128", "w-D1024BR-D1024BR, D1024"),
}
TABLE = {
    "ssmvae": SSMVAE_TABLE,
    "sshmvae": SSHMVAE_TABLE,
    "sshmvae-kl": SSHMVAE_TABLE | ENCODER_TABLE,
}


def printed(entry: str, width: int) -> tuple[str, str | None]:
    """A cell of the table as plain notation, and the family that it says its values are from."""
    for word, family in (("Bernoulli", "bernoulli"), ("softplus", "nonnegative")):
        mlp, is_family, output = entry.removesuffix(", negative squared error").partition(f", {word} ")
        if is_family:
            assert f"D{width}" in output.split(" or ")
            return f"{mlp}, D{width}", family
    return entry, None


def factory(preset: str, model: str, modalities: tuple[Modality, ...], classes: int) -> Factory:
    networks = preset_values(preset, model)["networks"]
    return Factory(networks, modalities, classes, Noise([0]), LabelRule())


def written(make: Factory) -> dict[str, tuple[Notation, str | None]]:
    """Every distribution of a preset by its full name: the network, and the family of an observation."""
    out: dict[str, tuple[Notation, str | None]] = {}
    for template in make.networks:
        variable, given = template[2:-1].split("|")
        if variable == "x" or given == "x":
            for m in make.modalities:
                family = m.distribution if variable == "x" else None
                out[make.written(template, m.name)] = make.notation(template, m.name), family
        else:
            out[make.written(template)] = make.notation(template), None
    return out


@pytest.mark.parametrize("model", list(TABLE))
@pytest.mark.parametrize(
    ("preset", "column", "modalities", "classes"),
    [("mnist", 0, HALVES, 10), ("mnist", 0, NOISY, 10), ("rgbd", 1, RGBD, 51)],
    ids=["hmMNIST", "nmMNIST", "RGB-D"],
)
def test_the_appendix_table_is_the_preset(
    preset: str, column: int, modalities: tuple[Modality, ...], classes: int, model: str
) -> None:
    built = written(factory(preset, model, modalities, classes))
    tabled = {name: printed(cells[column], modalities[0].width) for name, cells in TABLE[model].items()}
    side_by_side = {name: (str(parse(text)), family) for name, (text, family) in tabled.items()}
    assert {name: (str(notation), family) for name, (notation, family) in built.items()} == side_by_side


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("model", GENERATIVE)
def test_every_preset_is_a_complete_and_valid_settings_object_but_for_the_data(preset: str, model: str) -> None:
    values = preset_values(preset, model)
    settings = build({"model": model, "data": "some", **values})
    assert settings.alpha == (10 if preset == "sample" else 1)  # the paper does not say: 1
    assert settings.temperature == 0.1
    assert settings.networks == {name: str(parse(text)) for name, text in values["networks"].items()}


@pytest.mark.parametrize(
    ("preset", "batch_size", "learning_rate", "epochs"), [("mnist", 512, 1e-3, 500), ("rgbd", 128, 1e-4, 100)]
)
def test_the_training_settings_of_section_4(preset: str, batch_size: int, learning_rate: float, epochs: int) -> None:
    for model in GENERATIVE:
        values = preset_values(preset, model)
        assert (values["batch_size"], values["learning_rate"], values["epochs"]) == (batch_size, learning_rate, epochs)


@pytest.mark.parametrize(("preset", "modalities", "classes"), [("mnist", HALVES, 10), ("digits", HALVES, 10)])
@pytest.mark.parametrize("model", GENERATIVE)
def test_every_preset_makes_its_model(preset: str, modalities: tuple[Modality, ...], classes: int, model: str) -> None:
    """M2 of both modalities joined, SDGM of one, the others of two."""
    seen = modalities[:1] if model == "sdgm" else modalities
    card(model).build(factory(preset, model, seen, classes))


@pytest.mark.parametrize("model", ["jmvae", "jmvae-kl", "m2", "sdgm"])
def test_the_models_that_are_not_in_the_table_have_the_widths_of_their_neighbours(model: str) -> None:
    for preset, hidden, z in (("mnist", "D512BR", 64), ("rgbd", "D1024BR", 1024)):
        networks = preset_values(preset, model)["networks"]
        for name, text in networks.items():
            notation = parse(text)
            assert hidden in str(notation.mlp)
            if name.startswith("q(z"):
                assert notation.units == z
            if name.startswith("q(y"):
                assert notation.output.units == "K"
            if name.startswith("p(x"):
                assert notation.output.units == "x"


@pytest.mark.parametrize(
    ("distributions", "preset"),
    [
        (("bernoulli", "bernoulli"), "mnist"),
        (("nonnegative",), "rgbd"),
        (("nonnegative", "nonnegative"), "rgbd"),
        (("bernoulli", "gaussian"), "mnist"),
        (("nonnegative", "gaussian"), "mnist"),
        (("gaussian",), "mnist"),
    ],
)
def test_a_shard_that_names_no_preset_gets_one_by_its_kind(
    distributions: tuple[Distribution, ...], preset: str
) -> None:
    modalities = tuple(Modality(f"m{k}", 3, distribution) for k, distribution in enumerate(distributions))
    assert fitting_preset(None, modalities) == preset
    for named in PRESETS:
        assert fitting_preset(named, modalities) == named


@pytest.mark.parametrize("dataset", ["hm-digits", "nm-digits-45-0.5", "rgbd-sample-64", "rgbd", "hm-mnist"])
def test_the_spelling_of_a_shards_name_decides_nothing(dataset: str, make_shard: MakeShard, tmp_path: Path) -> None:
    shards = [make_shard(tmp_path / f"{name}.h5", dataset=dataset, preset=name) for name in (None, "digits", "sample")]
    assert [fitting_preset(shard.preset, shard.modalities) for shard in shards] == ["mnist", "digits", "sample"]


def test_the_bundled_digits_name_their_preset(tmp_path: Path) -> None:
    for name in ("hm-digits", "nm-digits"):
        assert Shard.open(digits.build(name, tmp_path, tmp_path / "raw")).preset == "digits"


def test_no_validation_part_is_the_papers_data() -> None:
    assert not any(name.endswith(VALIDATION) for name in PAPER_DATA)
