"""Experiments run: which runs they need, and what came of them beside the paper's numbers."""

import difflib
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pipeline.runtime.errors import UsageError
from pipeline.runtime.files import write_if_changed
from pipeline.shards.shard import Shard
from trainer.jobs import train as runner
from trainer.jobs.executors import Work, state
from trainer.jobs.train import check_model
from trainer.reporting import plots as figures
from trainer.reporting.comparison import Block, Cell, Measured, Outcome, Row, read_outcome, write_outcome
from trainer.reporting.comparison_tables import markdown
from trainer.reporting.generated_images import generation_figure
from trainer.reporting.plot_style import announce, save
from trainer.reproduction import printed_numbers as paper
from trainer.reproduction.experiments import EXPERIMENTS, RGBD, SPLITS, Experiment, Grid, Number, Source, Spec
from trainer.settings.presets import CO_TRAINED, PRESETS, preset_for
from trainer.training.run_folder import Run

SEEDS = (0, 1, 2, 3, 4)
_FINE_TUNING = 200  # epochs, section 4.2
_OWN = {"model", "data", "digest", "split", "seed", "epochs"} | {f.name for f in fields(Spec)}
_SHARE = 0.05  # of the training images that keep their label


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
            return spec.data.replace("-mnist", f"-{self.data.get('mnist', 'mnist')}")
        return self.data.get("rgbd", spec.data)


@dataclass(frozen=True)
class Plan:
    """What experiments need: by spec its runs, one a seed or split."""

    experiments: tuple[Experiment, ...]
    protocol: Protocol
    work: Mapping[Spec, tuple[Work, ...]]

    def all(self) -> list[Work]:
        """Every run, each once, however many numbers rest on it."""
        return list({one.folder: one for own in self.work.values() for one in own}.values())

    def of(self, experiment: Experiment) -> list[Work]:
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
    work: dict[Spec, tuple[Work, ...]] = {}
    opened: dict[str, Sequence[Shard]] = {}
    for spec in dict.fromkeys(spec for experiment in experiments for spec in experiment.specs()):
        name = protocol.data_of(spec)
        if name not in opened:
            opened[name] = shards(spec.source, name)
        values = (
            dict(protocol.values) | spec.values() | ({} if protocol.epochs is None else {"epochs": protocol.epochs})
        )
        seeds = protocol.seeds if spec.source == "mnist" else protocol.seeds[:1]
        jobs = runner.plan(spec.model, opened[name], preset=protocol.preset, values=values, seeds=seeds)
        folders = [runs / job.settings.name() for job in jobs]
        work[spec] = tuple(Work(job, folder, k) for k, (job, folder) in enumerate(zip(jobs, folders, strict=True)))
    return Plan(tuple(experiments), protocol, work)


def reduced(plan: Plan, experiment: Experiment) -> tuple[str, ...]:
    """In what the runs fall short of the paper's protocol, or depart from it."""
    protocol, found = plan.protocol, []
    work = [(spec, one) for spec in experiment.specs() for one in plan.work[spec]]
    for spec, one in work:
        found += _of_data(spec, one.job.shard)
    for spec, one in work:
        full, turn = _full(spec), "round of co-training" if spec.model in CO_TRAINED else "epoch"
        if one.job.settings.epochs != full:
            found.append(f"{_count(one.job.settings.epochs, turn)} instead of {full}")
    if "mnist" in experiment.sources and len(protocol.seeds) < len(SEEDS):
        found.append(f"{_count(len(protocol.seeds), 'seed')} instead of {len(SEEDS)}")
    if "rgbd" in experiment.sources and len(protocol.splits) < len(SPLITS):
        found.append(f"{_count(len(protocol.splits), 'split')} instead of {len(SPLITS)}")
    for spec, one in work:
        shard = one.job.shard
        preset = protocol.preset or preset_for(shard.dataset, {m.distribution for m in shard.modalities})
        if preset != spec.source:
            found.append(f"the settings of the preset '{preset}', not the paper's")
    found += [f"{name} set to {value}, not the preset's" for name, value in protocol.values.items()]
    return tuple(dict.fromkeys(found))


def _full(spec: Spec) -> int:
    """The epochs of the paper's protocol; for a co-trained system the rounds of ours."""
    return int(PRESETS[spec.source](check_model(spec.model))["epochs"])


def _of_data(spec: Spec, shard: Shard) -> list[str]:
    """In what a shard departs from the paper's."""
    if spec.source == "mnist":
        return [] if shard.dataset == spec.data else ["the 1,797 small digits of scikit-learn in the place of MNIST"]
    images, recipe = shard.provenance.get("images"), shard.provenance.get("recipe")
    if not isinstance(images, Mapping) or not isinstance(recipe, Mapping):
        return [f"the data set '{shard.dataset}' in the place of Washington RGB-D"]
    found = []
    if images["dataset"] != RGBD:
        found.append("a small rendered sample in the place of Washington RGB-D: the numbers are the sample's")
    weights, settings, size = shard.provenance["weights"], recipe["settings"], images["settings"]
    if weights == "random":
        found.append("features of a VGG16 with random weights")
    if settings["epochs"] != _FINE_TUNING:
        found.append(f"VGG16 fine-tuned for {_count(settings['epochs'], 'epoch')} instead of {_FINE_TUNING}")
    if settings["labelled"] != _SHARE:
        found.append(f"{settings['labelled']:.0%} of the training images labelled instead of {_SHARE:.0%}")
    for name, value in {"size": 148, "depth_encoding": "jet"}.items():
        if size[name] != value:
            found.append(f"images with a {name.replace('_', ' ')} of {size[name]} instead of {value}")
    return found


def _comparable(spec: Spec, shard: Shard) -> bool:
    """Whether a shard holds the paper's own data, however its features were made."""
    if spec.source == "mnist":
        return shard.dataset == spec.data
    images = shard.provenance.get("images")
    return isinstance(images, Mapping) and images.get("dataset") == RGBD


def measure(plan: Plan, experiment: Experiment, device: torch.device) -> Outcome:
    """What came of an experiment's runs so far, beside the paper's numbers. What is missing is there with a note."""
    work = plan.of(experiment)
    done = [one for one in work if one.done]
    notes = list(experiment.notes)
    if len(done) < len(work):
        notes.insert(0, f"INCOMPLETE: {len(done)} of {len(work)} runs are done; the same command goes on.")
    shards = [(spec, one.job.shard) for spec in experiment.specs() for one in plan.work[spec]]
    return Outcome(
        name=experiment.name,
        title=experiment.title,
        reduced=reduced(plan, experiment),
        comparable=all(_comparable(spec, shard) for spec, shard in shards),
        blocks=tuple(_block(plan, experiment.name, grid) for grid in experiment.grids),
        runs=tuple(one.folder.name for one in done),
        notes=tuple(notes),
        settings=_common([one.job.settings.model_dump(mode="json") for one in work]),
        provenance=_provenance(done, device),
    )


def draw(plan: Plan, experiment: Experiment, outcome: Outcome, folder: Path, device: torch.device) -> Outcome:
    """The outcome with its picture, `figure4.svg` in the folder, once all its runs are done; tables have none."""
    work = plan.of(experiment)
    if not experiment.name.startswith("figure") or not all(one.done for one in work):
        return outcome
    name, runs = f"{experiment.name}.svg", [Run(one.folder, one.job.settings) for one in work]
    if experiment.name == "figure4":
        figure = figures.alpha_figure(runs)
    elif experiment.name == "figure5":
        figure = generation_figure(runs, device)
    else:
        figure = figures.splits_figure(runs)
        for panel, grid in zip(figure.axes, experiment.grids, strict=True):
            panel.set_title(grid.title)
    if outcome.reduced:
        announce(figure, f"REDUCED: {'; '.join(outcome.reduced)}.")
    save(figure, folder / name)
    return outcome.model_copy(update={"figure": name})


def write(outcome: Outcome, folder: Path) -> tuple[Path, Path]:
    """Writes `table4.json` and `table4.md` into the folder."""
    paths = folder / f"{outcome.name}.json", folder / f"{outcome.name}.md"
    write_outcome(paths[0], outcome)
    write_if_changed(paths[1], markdown(outcome))
    return paths


def outputs(experiments: Sequence[Experiment], folder: Path) -> list[Path]:
    """Of each experiment the file that stands for all that is written of it."""
    return [folder / f"{one.name}.json" for one in experiments]


def check_folder(plan: Plan, folder: Path) -> None:
    """Refuses to put a reduced outcome in the place of a full one.

    Raises:
        UsageError: the folder holds a full one.
        DataError: it holds a file of that name that is no outcome.
    """
    for experiment, path in zip(plan.experiments, outputs(plan.experiments, folder), strict=True):
        if path.exists() and reduced(plan, experiment) and not read_outcome(path).reduced:
            raise UsageError(
                f"{path} holds the outcome of full runs, and this would be a reduced one", "choose another --out FOLDER"
            )


def _block(plan: Plan, name: str, grid: Grid) -> Block:
    rows = dict.fromkeys(number.row for number in grid.numbers)
    by_place = {(number.row, number.column): number for number in grid.numbers}
    table = paper.load().tables.get(name)

    def cell(row: str, column: str) -> Cell:
        number = by_place.get((row, column))
        if number is None:
            return Cell()
        measured, note = _measured(plan, number)
        return Cell(
            printed=None if table is None else table.printed(grid.title, row, column),
            measured=measured,
            note="; ".join(filter(None, (note, number.note))),
        )

    return Block(
        title=grid.title,
        columns=grid.columns,
        rows=tuple(Row(name=row, cells=tuple(cell(row, column) for column in grid.columns)) for row in rows),
    )


def _measured(plan: Plan, number: Number) -> tuple[Measured | None, str]:
    """The number, as far as its runs are done, and what is to be said of it."""
    work = plan.work[number.spec]
    if number.split is not None:
        work = tuple(one for one in work if one.job.settings.split == number.split)
        if not work:
            return None, "this split was not asked for"
    done = [one for one in work if one.done]
    if not done:
        return None, "no run of it is done" + (f" ({state(work[0])})" if work[0].begun else "")
    values = []
    for one in done:
        scores = Run(one.folder, one.job.settings).result().scores
        accuracy = {(score.given, score.means): score.accuracy for score in scores}
        if (number.given, number.means) not in accuracy:
            return None, f"the runs have no score given {number.given} by {number.means}"
        values.append(100 * accuracy[number.given, number.means])
    return (
        Measured(
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if len(values) > 1 else None,
            values=tuple(values),
            runs=tuple(one.folder.name for one in done),
        ),
        f"{len(done)} of {len(work)} runs are done" if len(done) < len(work) else "",
    )


def _provenance(done: Sequence[Work], device: torch.device) -> dict[str, Any]:
    trained = [Run(one.folder, one.job.settings).provenance() for one in done]
    return {
        **runner.environment(device),
        "the paper": paper.load().source,
        "runs trained on": sorted({f"{own.get('device')}, torch {own.get('torch')}" for own in trained}),
        "runs lie in": str(done[0].folder.parent.resolve()) if done else "",
    }


def _common(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all have the same."""
    return {key: value for key, value in settings[0].items() if all(own[key] == value for own in settings)}


def _count(number: int, what: str) -> str:
    first, *rest = what.split(" ")
    return " ".join([f"{number} {first}{'' if number == 1 else 's'}", *rest])
