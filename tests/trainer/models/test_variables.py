"""A modality may have any name, also that of a variable of the model."""

import pytest
import torch

from pipeline.shards.schema import Modality
from trainer.models.factory import Factory
from trainer.nn.labels import LabelRule
from trainer.nn.rng import Noise

R, B, K = 2, 4, 3


@pytest.mark.parametrize("names", [("y",), ("a", "z"), ("self", "a"), ("a", "a'"), ("X", "x", "K")])
def test_a_modality_may_be_named_like_a_variable_of_the_model(names: tuple[str, ...]) -> None:
    networks = {"q(a|X)": "(X-D3), D1", "q(z|a,y)": "(a, y), D1", "q(y|X,a)": "(a, X), DK", "p(x|z,y)": "(z, y), Dx"}
    modalities = tuple(Modality(name, width, "gaussian") for width, name in enumerate(names, 2))
    make = Factory(networks, modalities, K, Noise([0, 1]), LabelRule())
    x = {m.name: torch.rand(R, B, m.width) for m in modalities}
    a = make.gaussian("q(a|X)")(x).mean
    y = make.categorical("q(y|X,a)")(x, a=a).probs
    z = make.gaussian("q(z|a,y)")(a=a, y=y).mean
    terms = make.observations("p(x|z,y)").log_prob(x, z=z, y=y)
    assert len(terms) == len(names)  # each has a name of its own
    assert len({*make.variables.values(), "y", "a", "z"}) == len(names) + 3
    assert make.gaussian("q(a|X)").mlp.width == 3 * len(names)
