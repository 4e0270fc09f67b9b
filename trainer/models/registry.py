"""Every model by its name on the command line. A new model is one file that ends in its card, plus one line here.

A file is imported only when its card is first used, so code that needs just the names (help, completion, lists of runs)
does not import torch.
"""

import difflib
from functools import cache
from importlib import import_module

from pipeline.runtime.errors import UsageError
from trainer.models.card import ModelCard

_FILES = {  # in the order in which reports and figures show them
    "jmvae": "trainer.models.jmvae",
    "jmvae-kl": "trainer.models.jmvae_kl",
    "m2": "trainer.models.m2",
    "sdgm": "trainer.models.sdgm",
    "ssmvae": "trainer.models.ssmvae",
    "sshmvae": "trainer.models.sshmvae",
    "sshmvae-kl": "trainer.models.sshmvae_kl",
    "ct-svm": "trainer.baselines.cotrained_svm",
    "cotraining": "trainer.baselines.cotrained_networks",
}


def model_names() -> tuple[str, ...]:
    """The names of all models, in the order of reports."""
    return tuple(_FILES)


@cache
def card(name: str) -> ModelCard:
    """The card of a model.

    Raises:
        UsageError: there is no such model.
    """
    if name not in _FILES:
        near = difflib.get_close_matches(name, _FILES, n=1)
        raise UsageError(
            f"there is no model '{name}'" + (f"; did you mean {near[0]}?" if near else ""),
            f"models: {', '.join(_FILES)}",
        )
    result: ModelCard = import_module(_FILES[name]).CARD
    assert result.name == name, f"the card in {_FILES[name]} is named '{result.name}'"
    return result


def cards() -> list[ModelCard]:
    """The cards of all models, in the order of reports."""
    return [card(name) for name in _FILES]
