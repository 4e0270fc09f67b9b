"""How experiments are run, and which runs they need."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.runtime.errors import UsageError
from pipeline.runtime.text import file_name
from pipeline.shards.schema import VALIDATION
from pipeline.shards.shard import Shard
from trainer.jobs.plan import plan as plan_jobs
from trainer.jobs.stacks import PlannedRun
from trainer.reproduction.experiments import DIGITS, EXPERIMENTS, SPLITS, Experiment, Source, Spec
from trainer.settings.names import PAPER

SEEDS = (0, 1, 2, 3, 4)
# The settings that experiments decide themselves, so that `--set` cannot.
_FIXED_SETTINGS = {"model", "data", "digest", "split", "seed", "epochs"} | {f.name for f in fields(Spec)}


@dataclass(frozen=True)
class Protocol:
    """How experiments are run; the defaults are the paper's, as far as it states them.

    Attributes:
        seeds: seeds of the runs on MNIST; runs on splits use only the first one.
        splits: splits of RGB-D.
        epochs: epochs instead of the preset's.
        preset: a preset instead of the paper's.
        values: settings that replace the preset's; those that the experiments vary themselves are not allowed.
        data: by source, what replaces the paper's data (`choose_data`).
    """

    seeds: tuple[int, ...] = SEEDS
    splits: tuple[int, ...] = tuple(SPLITS)
    epochs: int | None = None
    preset: str = PAPER
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    data: Mapping[Source, str] = field(default_factory=lambda: MappingProxyType({}))

    def name(self) -> str:
        """The name of the results' folder: `paper`, or what departs from it, so that reduced results are kept apart."""
        departures = [*self.data.values(), *([] if self.preset == PAPER else [self.preset])]
        if self.epochs is not None:
            departures.append(f"{self.epochs}-epochs")
        departures += [name if isinstance(value, Mapping) else f"{name}-{value}" for name, value in self.values.items()]
        if self.seeds != SEEDS:
            departures.append(f"seeds-{'-'.join(map(str, self.seeds))}")
        if self.splits != tuple(SPLITS):
            departures.append(f"splits-{'-'.join(map(str, self.splits))}")
        return file_name("-".join(departures)) or "paper"

    def data_of(self, spec: Spec) -> str:
        """The name of the data set that a spec is trained on."""
        if spec.source == "mnist":
            return DIGITS[spec.data] if self.data.get("mnist") == "digits" else spec.data
        return self.data.get("rgbd", spec.data)


@dataclass(frozen=True)
class Plan:
    """The runs that experiments need, by spec: one per seed or split."""

    experiments: tuple[Experiment, ...]
    protocol: Protocol
    work: Mapping[Spec, tuple[PlannedRun, ...]]

    def all(self) -> list[PlannedRun]:
        """All runs, each once, however many numbers depend on it."""
        return list({run.folder: run for runs in self.work.values() for run in runs}.values())

    def of(self, experiment: Experiment) -> list[PlannedRun]:
        """The runs of one experiment, each once."""
        return list({run.folder: run for spec in experiment.specs() for run in self.work[spec]}.values())


def select(names: Sequence[str], only: str | None = None) -> tuple[Experiment, ...]:
    """Selects experiments by name, or `all`; with `only`, those on mnist or on rgbd.

    Raises:
        UsageError: there is no experiment of a name, or none is left.
    """
    if only not in (None, "mnist", "rgbd"):
        raise UsageError(f"--data-only {only}: there are experiments on mnist and on rgbd")
    for name in names:
        if name != "all" and name not in EXPERIMENTS:
            near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
            raise UsageError(
                f"there is no experiment '{name}'" + (f"; did you mean {near[0]}?" if near else ""),
                f"experiments: {', '.join(EXPERIMENTS)}, all",
            )
    named = [experiment for name, experiment in EXPERIMENTS.items() if "all" in names or name in names]
    selected = tuple(experiment for experiment in named if only is None or experiment.sources == {only})
    if not selected:
        raise UsageError(f"none of {', '.join(names)} is on {only}", "leave --data-only out")
    return selected


def choose_data(names: Sequence[str], experiments: Sequence[Experiment]) -> dict[Source, str]:
    """Chooses what replaces the paper's data: `digits` replaces MNIST, any other name Washington RGB-D.

    Raises:
        UsageError: two names replace the same data, no experiment uses one, or one is a validation part.
    """
    replacements: dict[Source, str] = {}
    for name in names:
        if name.endswith(VALIDATION):
            raise UsageError(
                f"--data {name}: the paper's tables are measured on test parts, not on validation parts",
                f"--data {name.removesuffix(VALIDATION)}",
            )
        source: Source = "mnist" if name in ("mnist", "digits") else "rgbd"
        if source in replacements:
            raise UsageError(f"--data {','.join(names)}: {replacements[source]} and {name} would replace the same data")
        if not any(source in experiment.sources for experiment in experiments):
            raise UsageError(
                f"--data {name}: none of {', '.join(experiment.name for experiment in experiments)} would use it",
                "digits replaces MNIST (tables 1 to 4, figures 4 and 5), other names replace RGB-D",
            )
        replacements[source] = name
    return replacements


def plan(
    experiments: Sequence[Experiment],
    shards: Callable[[Source, str], Sequence[Shard]],
    protocol: Protocol,
    runs: Path,
) -> Plan:
    """Plans the runs that experiments need, as complete settings.

    Args:
        shards: opens the shard of a data set, or on RGB-D the shards of the protocol's splits.
        runs: the folder that holds the runs.

    Raises:
        UsageError: a setting is invalid, or fixed by the experiments.
    """
    for name in _FIXED_SETTINGS & protocol.values.keys():
        raise UsageError(
            f"--set {name}: the experiments decide that themselves", "--epochs, --seeds and --split can be set"
        )
    work: dict[Spec, tuple[PlannedRun, ...]] = {}
    opened: dict[str, Sequence[Shard]] = {}
    for spec in dict.fromkeys(spec for experiment in experiments for spec in experiment.specs()):
        name = protocol.data_of(spec)
        if name not in opened:
            opened[name] = shards(spec.source, name)
        values = (
            dict(protocol.values) | spec.values() | ({} if protocol.epochs is None else {"epochs": protocol.epochs})
        )
        seeds = protocol.seeds if spec.source == "mnist" else protocol.seeds[:1]
        jobs = plan_jobs(spec.model, opened[name], preset=protocol.preset, values=values, seeds=seeds)
        folders = [runs / job.settings.name() for job in jobs]
        work[spec] = tuple(
            PlannedRun(job, folder, rank) for rank, (job, folder) in enumerate(zip(jobs, folders, strict=True))
        )
    return Plan(tuple(experiments), protocol, work)
