"""How wide a run's networks are: it decides how a CPU computes them best."""

from collections.abc import Iterator

from trainer.nn.notation import Chain, Dense, parse
from trainer.settings.run_settings import Settings

WIDE = 512  # units


def is_wide(settings: Settings) -> bool:
    """Whether every hidden layer has `WIDE` units or more; false if there is none."""
    return min(hidden_units(settings), default=0) >= WIDE


def is_narrow(settings: Settings) -> bool:
    """Whether every hidden layer has fewer than `WIDE` units; false if there is none."""
    return max(hidden_units(settings), default=WIDE) < WIDE


def hidden_units(settings: Settings) -> list[int]:
    """The number of units of every hidden layer."""
    return [units for text in settings.networks.values() for units in _units(parse(text).mlp)]


def _units(chain: Chain) -> Iterator[int]:
    for part in () if isinstance(chain.source, str) else chain.source:
        yield from _units(part)
    yield from (int(layer.units) for layer in chain.layers if isinstance(layer, Dense))
