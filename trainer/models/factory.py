"""Builds a model's distributions by their names in the paper, from a preset's networks and the shape of the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality
from trainer.models.posterior import Pooling
from trainer.nn.distributions import OBSERVATIONS, Categorical, Gaussian, ObservationModel, PerModality
from trainer.nn.labels import LabelPrior, LabelRule
from trainer.nn.notation import Notation, expand, parse
from trainer.nn.rng import Noise

C = TypeVar("C", Gaussian, Categorical, ObservationModel)


@dataclass(frozen=True)
class Factory:
    """Everything a model is built from.

    Args:
        networks: template notation by distribution, `{"q(a|X)": "(X-D512BR-D512BR)-D512BR, D128", ...}`. In the names
            as well, `X` stands for all modalities and `x` for each in turn.
        modalities: the modalities of the data, in order.
        classes: K.
        noise: the replicas' random streams.
        label: how a bound treats an unobserved label.
        prior: p(y).
        pooling: how single-modality encoders are combined where modalities are missing (`trainer.models.posterior`).
        joint_encoder: whether models with single-modality encoders also have a joint one, q(a|X).
    """

    networks: Mapping[str, str]
    modalities: tuple[Modality, ...]
    classes: int
    noise: Noise
    label: LabelRule
    prior: LabelPrior = field(default_factory=LabelPrior)
    pooling: Pooling = "geometric"
    joint_encoder: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.modalities)

    @cached_property
    def widths(self) -> dict[str, int]:
        """The width of every variable: the modalities, `y`, and each latent, as wide as its inference network's output.

        Raises:
            UsageError: networks disagree about a width.
        """
        return {self.variables[m.name]: m.width for m in self.modalities} | self._own_widths

    @cached_property
    def variables(self) -> dict[str, str]:
        """The variable that stands for each modality: its name, with a prime where the model's own have that name.

        Raises:
            UsageError: networks disagree about a width.
        """
        taken = {*self._own_widths, *self.names}
        variables = {}
        for modality in self.names:
            variable = modality
            while variable in self._own_widths or (variable != modality and variable in taken):
                variable += "'"
            taken.add(variable)
            variables[modality] = variable
        return variables

    @cached_property
    def _own_widths(self) -> dict[str, int]:
        """The width of each variable that is not a modality."""
        latents: dict[str, int] = {}
        for name, notation in self.networks.items():
            variable = name[2:].split("|")[0]
            if name.startswith("q(") and variable != "y":
                units = parse(notation).units
                if latents.setdefault(variable, units) != units:
                    raise UsageError(f"{name} has {units} units, but {variable} has {latents[variable]}")
        return {"y": self.classes} | latents

    def concatenated(self) -> "Factory":
        """The same factory with all modalities joined into one variable `x` (M2 on [x;w], table 2).

        Raises:
            UsageError: the modalities have different distributions.
        """
        kinds = sorted({modality.distribution for modality in self.modalities})
        if len(kinds) > 1:
            raise UsageError(
                f"modalities of different kinds ({', '.join(kinds)}) cannot be joined into one variable",
                f"choose one: --modality {self.names[0]}",
            )
        joint = Modality("x", sum(modality.width for modality in self.modalities), kinds[0])
        return replace(self, modalities=(joint,))

    def gaussian(self, name: str) -> Gaussian:
        return self._make(Gaussian, name)

    def joint(self, name: str) -> Gaussian | None:
        """The joint encoder of a model that has single-modality encoders too, or None if it is to do without.

        Of a single modality there is always one: there is nothing to combine.
        """
        return self.gaussian(name) if self.joint_encoder or len(self.modalities) == 1 else None

    def categorical(self, name: str) -> Categorical:
        return self._make(Categorical, name)

    def gaussians(self, name: str) -> PerModality[Gaussian]:
        """One Gaussian per modality, such as `q(a|x)`."""
        return PerModality({m: self._make(Gaussian, name, m) for m in self.names})

    def observations(self, name: str) -> PerModality[ObservationModel]:
        """One observation model per modality, such as `p(x|a)`, with that modality's distribution."""
        return PerModality({m.name: self._make(OBSERVATIONS[m.distribution], name, m.name) for m in self.modalities})

    def written(self, name: str, modality: str | None = None) -> str:
        """A distribution's name with the modalities filled in: `q(a|X)` -> `q(a|x,w)`; for w, `p(x|a)` -> `p(w|a)`."""
        fill = {"X": ",".join(self.variables.values())}
        fill |= {"x": self.variables[modality]} if modality is not None else {}
        variable, given = name[2:-1].split("|")
        return f"{name[0]}({fill.get(variable, variable)}|{','.join(fill.get(v, v) for v in given.split(','))})"

    def notation(self, name: str, modality: str | None = None) -> Notation:
        """A distribution's network, with the modalities and widths filled in.

        Raises:
            UsageError: there is no network of that name.
        """
        if name not in self.networks:
            raise UsageError(f"there is no network for {name}", f"networks: {', '.join(self.networks)}")
        widths = {self.variables[m.name]: m.width for m in self.modalities}
        variable = None if modality is None else self.variables[modality]
        return expand(parse(self.networks[name]), widths, self.classes, variable)

    def _make(self, kind: type[C], name: str, modality: str | None = None) -> C:
        notation = self.notation(name, modality)
        variable = name[2:-1].split("|")[0]
        expected = self.widths[self.variables[modality] if variable == "x" and modality is not None else variable]
        if notation.units != expected:
            raise UsageError(f"the network of {name}, '{notation}', ends in {notation.units} units, not {expected}")
        made = kind(self.written(name, modality), notation, self.widths, self.noise)
        made.variables = self.variables
        return made
