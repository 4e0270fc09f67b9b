"""Experiments run: which runs they need, and what came of them beside the paper's numbers."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.errors import UsageError
from pipeline.runtime.files import write_if_changed
from pipeline.shards.shard import Shard
from trainer.jobs.environment import environment
from trainer.jobs.stacks import PlannedRun, status
from trainer.reporting import plots
from trainer.reporting.comparison import Block, Cell, ExperimentResult, Measured, Row, read_result, write_result
from trainer.reporting.comparison_tables import markdown
from trainer.reporting.generated_images import generation_figure
from trainer.reporting.plot_style import announce, save
from trainer.reproduction import printed_numbers
from trainer.reproduction.experiments import RGBD, SPLITS, Experiment, Grid, Number, Spec
from trainer.reproduction.protocol import SEEDS, Plan
from trainer.settings.presets import fitting_preset, paper_epochs
from trainer.training.run_folder import Run


def reduced(plan: Plan, experiment: Experiment) -> tuple[str, ...]:
    """In what the runs fall short of the paper's protocol, or depart from it."""
    protocol, found = plan.protocol, []
    work = [(spec, one) for spec in experiment.specs() for one in plan.work[spec]]
    for spec, one in work:
        found += _of_data(spec, one.job.shard)
    for spec, one in work:
        settings, full = one.job.settings, paper_epochs(spec.source, spec.model)
        if settings.epochs != full:
            unit = "round of co-training" if settings.turns == "rounds" else "epoch"
            found.append(f"{_count(settings.epochs, unit)} instead of {full}")
    if "mnist" in experiment.sources and len(protocol.seeds) < len(SEEDS):
        found.append(f"{_count(len(protocol.seeds), 'seed')} instead of {len(SEEDS)}")
    if "rgbd" in experiment.sources and len(protocol.splits) < len(SPLITS):
        found.append(f"{_count(len(protocol.splits), 'split')} instead of {len(SPLITS)}")
    for spec, one in work:
        shard = one.job.shard
        preset = protocol.preset or fitting_preset(shard.preset, shard.modalities)
        if preset != spec.source:
            found.append(f"the settings of the preset '{preset}', not the paper's")
    found += [f"{name} set to {value}, not the preset's" for name, value in protocol.values.items()]
    return tuple(dict.fromkeys(found))


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
    papers = printed_numbers.load().features
    if weights == "random":
        found.append("features of a VGG16 with random weights")
    if settings["epochs"] != papers.epochs:
        found.append(f"VGG16 fine-tuned for {_count(settings['epochs'], 'epoch')} instead of {papers.epochs}")
    if settings["labelled"] != papers.labelled:
        found.append(f"{settings['labelled']:.0%} of the training images labelled instead of {papers.labelled:.0%}")
    for name, value in {"size": papers.size, "depth_encoding": papers.depth_encoding}.items():
        if size[name] != value:
            found.append(f"images with a {name.replace('_', ' ')} of {size[name]} instead of {value}")
    return found


def _comparable(spec: Spec, shard: Shard) -> bool:
    """Whether a shard holds the paper's own data, however its features were made."""
    if spec.source == "mnist":
        return shard.dataset == spec.data
    images = shard.provenance.get("images")
    return isinstance(images, Mapping) and images.get("dataset") == RGBD


def measure(plan: Plan, experiment: Experiment, device: torch.device) -> ExperimentResult:
    """What came of an experiment's runs so far, beside the paper's numbers. What is missing is there with a note."""
    work = plan.of(experiment)
    done = [one for one in work if one.done]
    notes = list(experiment.notes)
    if len(done) < len(work):
        notes.insert(0, f"INCOMPLETE: {len(done)} of {len(work)} runs are done; the same command goes on.")
    shards = [(spec, one.job.shard) for spec in experiment.specs() for one in plan.work[spec]]
    return ExperimentResult(
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


def draw(
    plan: Plan, experiment: Experiment, outcome: ExperimentResult, folder: Path, device: torch.device
) -> ExperimentResult:
    """The outcome with its picture, `figure4.svg` in the folder, once all its runs are done; tables have none."""
    work = plan.of(experiment)
    if not experiment.name.startswith("figure") or not all(one.done for one in work):
        return outcome
    name, runs = f"{experiment.name}.svg", [Run(one.folder, one.job.settings) for one in work]
    if experiment.name == "figure4":
        figure = plots.alpha_figure(runs)
    elif experiment.name == "figure5":
        figure = generation_figure(runs, device)
    else:
        figure = plots.splits_figure(runs)
        for panel, grid in zip(figure.axes, experiment.grids, strict=True):
            panel.set_title(grid.title)
    if outcome.reduced:
        announce(figure, f"REDUCED: {'; '.join(outcome.reduced)}.")
    save(figure, folder / name)
    return outcome.model_copy(update={"figure": name})


def write(outcome: ExperimentResult, folder: Path) -> tuple[Path, Path]:
    """Writes `table4.json` and `table4.md` into the folder."""
    paths = folder / f"{outcome.name}.json", folder / f"{outcome.name}.md"
    write_result(paths[0], outcome)
    write_if_changed(paths[1], markdown(outcome))
    return paths


def write_all(
    plan: Plan, experiments: Sequence[Experiment], folder: Path, device: torch.device
) -> tuple[list[ExperimentResult], list[Path]]:
    """Measures, draws and writes experiments as far as their runs are done: the results, and the files."""
    measured = [measure(plan, experiment, device) for experiment in experiments]
    results = [
        draw(plan, experiment, result, folder, device) for experiment, result in zip(experiments, measured, strict=True)
    ]
    paths = [path for result in results for path in write(result, folder)]
    return results, paths + [folder / result.figure for result in results if result.figure is not None]


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
        if path.exists() and reduced(plan, experiment) and not read_result(path).reduced:
            raise UsageError(
                f"{path} holds the outcome of full runs, and this would be a reduced one", "choose another --out FOLDER"
            )


def _block(plan: Plan, name: str, grid: Grid) -> Block:
    rows = dict.fromkeys(number.row for number in grid.numbers)
    by_place = {(number.row, number.column): number for number in grid.numbers}
    table = printed_numbers.load().tables.get(name)

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
        return None, "no run of it is done" + (f" ({status(work[0])})" if work[0].begun else "")
    values = []
    for one in done:
        scores = Run(one.folder, one.job.settings).result().scores
        accuracy = {(score.given, score.completion): score.accuracy for score in scores}
        if (number.given, number.completion) not in accuracy:
            return None, f"the runs have no score given {number.given} by {number.completion}"
        values.append(100 * accuracy[number.given, number.completion])
    return (
        Measured(
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if len(values) > 1 else None,
            values=tuple(values),
            runs=tuple(one.folder.name for one in done),
        ),
        f"{len(done)} of {len(work)} runs are done" if len(done) < len(work) else "",
    )


def _provenance(done: Sequence[PlannedRun], device: torch.device) -> dict[str, Any]:
    trained = [Run(one.folder, one.job.settings).provenance() for one in done]
    return {
        **environment(device),
        "the paper": printed_numbers.load().source,
        "runs trained on": sorted({f"{own.get('device')}, torch {own.get('torch')}" for own in trained}),
        "runs lie in": str(done[0].folder.parent.resolve()) if done else "",
    }


def _common(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all have the same."""
    return {key: value for key, value in settings[0].items() if all(own[key] == value for own in settings)}


def _count(number: int, what: str) -> str:
    first, *rest = what.split(" ")
    return " ".join([f"{number} {first}{'' if number == 1 else 's'}", *rest])
