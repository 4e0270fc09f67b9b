"""How experiments are run, and which runs they need."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Shard
from trainer.jobs.plan import plan as plan_jobs
from trainer.jobs.stacks import PlannedRun
from trainer.reproduction.experiments import DIGITS, EXPERIMENTS, SPLITS, Experiment, Source, Spec

SEEDS = (0, 1, 2, 3, 4)


_OWN = {"model", "data", "digest", "split", "seed", "epochs"} | {f.name for f in fields(Spec)}


@dataclass(frozen=True)
class Protocol:
    """How experiments are run; the defaults are the paper's, as far as it says.

    Attributes:
        seeds: of the runs on MNIST; those on splits take the first of them.
        splits: of RGB-D.
        epochs: in place of the preset's.
        preset: in place of the one that fits the data.
        values: settings that replace the preset's; none of those that the experiments themselves are about.
        data: by source, what takes the place of the paper's data (`choose_data`).
    """

    seeds: tuple[int, ...] = SEEDS
    splits: tuple[int, ...] = tuple(SPLITS)
    epochs: int | None = None
    preset: str | None = None
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    data: Mapping[Source, str] = field(default_factory=lambda: MappingProxyType({}))

    def name(self) -> str:
        """A folder's name: `paper`, or what departs from it, so that a reduced outcome says so by its place too."""
        said = [*self.data.values(), *([self.preset] if self.preset else [])]
        if self.epochs is not None:
            said.append(f"{self.epochs}-epochs")
        said += [name if isinstance(value, Mapping) else f"{name}-{value}" for name, value in self.values.items()]
        if self.seeds != SEEDS:
            said.append(f"seeds-{'-'.join(map(str, self.seeds))}")
        if self.splits != tuple(SPLITS):
            said.append(f"splits-{'-'.join(map(str, self.splits))}")
        return re.sub(r"[^\w.+-]", "_", "-".join(said)).lstrip(".") or "paper"

    def data_of(self, spec: Spec) -> str:
        """The data set that a spec is trained on."""
        if spec.source == "mnist":
            return DIGITS[spec.data] if self.data.get("mnist") == "digits" else spec.data
        return self.data.get("rgbd", spec.data)


@dataclass(frozen=True)
class Plan:
    """What experiments need: by spec its runs, one a seed or split."""

    experiments: tuple[Experiment, ...]
    protocol: Protocol
    work: Mapping[Spec, tuple[PlannedRun, ...]]

    def all(self) -> list[PlannedRun]:
        """Every run, each once, however many numbers rest on it."""
        return list({one.folder: one for own in self.work.values() for one in own}.values())

    def of(self, experiment: Experiment) -> list[PlannedRun]:
        """The runs of one experiment, each once."""
        return list({one.folder: one for spec in experiment.specs() for one in self.work[spec]}.values())


def select(names: Sequence[str], only: str | None = None) -> tuple[Experiment, ...]:
    """Experiments by their names, or `all`; `only` those on mnist or on rgbd.

    Raises:
        UsageError: a name is none, or nothing is left.
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
    chosen = [one for name, one in EXPERIMENTS.items() if "all" in names or name in names]
    found = tuple(one for one in chosen if only is None or one.sources == {only})
    if not found:
        raise UsageError(f"none of {', '.join(names)} is on {only}", "leave --data-only out")
    return found


def choose_data(names: Sequence[str], experiments: Sequence[Experiment]) -> dict[Source, str]:
    """What takes the place of the paper's data: `digits` of MNIST's, any other name of RGB-D's.

    Raises:
        UsageError: two for one place, or one that no experiment would see.
    """
    found: dict[Source, str] = {}
    for name in names:
        source: Source = "mnist" if name in ("mnist", "digits") else "rgbd"
        if source in found:
            raise UsageError(f"--data {','.join(names)}: {found[source]} and {name} would take the same place")
        if not any(source in one.sources for one in experiments):
            raise UsageError(
                f"--data {name}: none of {', '.join(one.name for one in experiments)} would see it",
                "digits takes the place of MNIST (tables 1 to 4, figures 4 and 5), other names that of RGB-D",
            )
        found[source] = name
    return found


def plan(
    experiments: Sequence[Experiment],
    shards: Callable[[Source, str], Sequence[Shard]],
    protocol: Protocol,
    runs: Path,
) -> Plan:
    """The runs that experiments need, as complete settings.

    Args:
        shards: gives the shard of a data set, or on RGB-D those of the protocol's splits.
        runs: the folder in which the runs lie.

    Raises:
        UsageError: a setting that cannot be.
    """
    for name in _OWN & protocol.values.keys():
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
            PlannedRun(job, folder, k) for k, (job, folder) in enumerate(zip(jobs, folders, strict=True))
        )
    return Plan(tuple(experiments), protocol, work)
