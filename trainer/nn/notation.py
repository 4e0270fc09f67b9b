"""The paper's network notation (appendix A.1): parsed, edited as data, and expanded from templates."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from pipeline.runtime.errors import UsageError

_TOKEN = re.compile(r"\s*([(),-]|[^\s(),-]+)")
_DENSE = re.compile(r"D([1-9]\d*|K|x)(BR)?")
_DEEPEST = 20  # brackets within one another
_DROPOUT = re.compile(r"(Row)?Dropout(0?\.\d*[1-9]\d*)")


@dataclass(frozen=True)
class Dense:
    """A linear layer, `Dk` or `DkBR`; `units` is a number, or in a template also `K` or `x`."""

    units: str
    batch_norm_relu: bool = False

    def __str__(self) -> str:
        return f"D{self.units}{'BR' * self.batch_norm_relu}"


@dataclass(frozen=True)
class Dropout:
    """Dropout at a rate, `Dropout0.5`; of all units of a row or none, `RowDropout0.5`."""

    rate: float
    of_rows: bool = False

    def __str__(self) -> str:
        return f"{'Row' * self.of_rows}Dropout{np.format_float_positional(self.rate)}"


@dataclass(frozen=True)
class Chain:
    """A source (an input's name, or the concatenation of chains) followed by layers."""

    source: "str | tuple[Chain, ...]"
    layers: tuple[Dense | Dropout, ...] = ()

    def __str__(self) -> str:
        source = self.source if isinstance(self.source, str) else f"({', '.join(map(str, self.source))})"
        return "-".join([source, *map(str, self.layers)])


@dataclass(frozen=True)
class Notation:
    """`MLP, Dk`: the hidden network and the width of its linear output."""

    mlp: Chain
    output: Dense

    def __str__(self) -> str:
        return f"{self.mlp}, {self.output}"

    def with_units(self, units: int) -> "Notation":
        """The same network with a different output width."""
        return replace(self, output=Dense(str(units)))

    def resized(self, hidden: int, output: int) -> "Notation":
        """The same network with `hidden` units in every hidden layer, and `output` units if its output is a number."""
        units = self.output.units
        return Notation(_resized(self.mlp, hidden), Dense(str(output) if units.isdigit() else units))

    def dropping(self, rate: float) -> "Notation":
        """The same network with dropout of whole rows at the end of each modality's branch, `X-...`, that it joins."""
        return replace(self, mlp=_dropping(self.mlp, Dropout(rate, of_rows=True)))

    @property
    def units(self) -> int:
        """The number of output units.

        Raises:
            UsageError: the output is a template's `DK` or `Dx`, not a number.
        """
        if not self.output.units.isdigit():
            raise UsageError(f"the network '{self}' must end in a number of units, not in {self.output}")
        return int(self.output.units)


def _resized(chain: Chain, units: int) -> Chain:
    source = chain.source if isinstance(chain.source, str) else tuple(_resized(part, units) for part in chain.source)
    return Chain(source, tuple(replace(x, units=str(units)) if isinstance(x, Dense) else x for x in chain.layers))


def _dropping(chain: Chain, dropout: Dropout) -> Chain:
    if isinstance(chain.source, str):
        return chain
    branches = tuple(
        replace(part, layers=(*part.layers, dropout)) if part.source == "X" else _dropping(part, dropout)
        for part in chain.source
    )
    return Chain(branches, chain.layers)


def parse(text: str) -> Notation:
    """Parses a network such as `(z, y)-D512BR-D512BR, D128`.

    Raises:
        UsageError: the text is not in the notation.
    """
    tokens = _TOKEN.findall(text)

    def fail(why: str) -> UsageError:
        return UsageError(
            f"the network '{text}' is not in the notation: {why}", "an example: (z, y)-D512BR-D512BR, D128"
        )

    def take(expected: str | None = None) -> str:
        if not tokens or (expected is not None and tokens[0] != expected):
            raise fail(f"expected {expected or 'more'}, got {tokens[0] if tokens else 'the end'}")
        return cast(str, tokens.pop(0))

    def layer() -> Dense | Dropout:
        token = take()
        if match := _DENSE.fullmatch(token):
            return Dense(match[1], match[2] is not None)
        if match := _DROPOUT.fullmatch(token):
            return Dropout(float(match[2]), match[1] is not None)
        raise fail(f"'{token}' is not a layer")

    def chain(depth: int = 0) -> Chain:
        source: str | tuple[Chain, ...]
        if tokens and tokens[0] == "(":
            take("(")
            if depth == _DEEPEST:
                raise fail(f"its brackets are more than {_DEEPEST} deep")
            parts = [chain(depth + 1)]
            while tokens and tokens[0] == ",":
                take(",")
                parts.append(chain(depth + 1))
            take(")")
            source = tuple(parts)
        else:
            source = take()
            if source in "),-":
                raise fail(f"an input's name is missing before '{source}'")
        layers = []
        while tokens and tokens[0] == "-":
            take("-")
            layers.append(layer())
            if isinstance(layers[-1], Dense) and not layers[-1].units.isdigit():
                raise fail(f"{layers[-1]} can only be the output")
        return Chain(source, tuple(layers))

    mlp = chain()
    take(",")
    output = layer()
    if tokens:
        raise fail(f"unexpected '{tokens[0]}' after the output")
    if not isinstance(output, Dense) or output.batch_norm_relu:
        raise fail("it must end in a plain linear output, such as D128")
    return Notation(mlp, output)


def expand(template: Notation, modalities: Mapping[str, int], classes: int, modality: str | None = None) -> Notation:
    """Replaces `X`, `x`, `DK` and `Dx` in a template.

    Args:
        modalities: the width of each modality, in order; `X` becomes one branch per modality.
        classes: K.
        modality: the modality that `x` stands for, if the network belongs to a single one.
    """

    def branches_of(chain: Chain) -> list[Chain]:
        if chain.source == "X":
            return [Chain(name, chain.layers) for name in modalities]
        if chain.source == "x" and modality is not None:
            return [Chain(modality, chain.layers)]
        if isinstance(chain.source, str):
            return [chain]
        parts = tuple(part for inner in chain.source for part in branches_of(inner))
        return [Chain(parts, chain.layers)]

    branches = branches_of(template.mlp)
    mlp = branches[0] if len(branches) == 1 else Chain(tuple(branches))
    units = template.output.units
    if units == "K":
        units = str(classes)
    elif units == "x":
        if modality is None:
            raise UsageError(f"the network '{template}' ends in Dx, but does not belong to a single modality")
        units = str(modalities[modality])
    return Notation(mlp, Dense(units))
