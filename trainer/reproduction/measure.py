"""Measures experiments: the numbers of their finished runs next to the paper's, drawn and written to files."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.errors import UsageError
from pipeline.runtime.files import write_if_changed
from pipeline.shards.shard import Shard
from trainer.evaluation.intervals import SPLITS_OVERLAP
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
from trainer.settings.names import PAPER
from trainer.settings.presets import fitting_preset, paper_epochs


def reduced(plan: Plan, experiment: Experiment) -> tuple[str, ...]:
    """How the runs fall short of the paper's protocol or depart from it, one phrase each.

    The phrases are recorded in result files, so their wording does not change.
    """
    protocol, departures = plan.protocol, []
    work = [(spec, run) for spec in experiment.specs() for run in plan.work[spec]]
    for spec, run in work:
        departures += _data_departures(spec, run.job.shard)
    for spec, run in work:
        settings, full = run.job.settings, paper_epochs(spec.source, spec.model)
        if settings.epochs != full:
            unit = "round of co-training" if settings.turns == "rounds" else "epoch"
            departures.append(f"{_count(settings.epochs, unit)} instead of {full}")
    if "mnist" in experiment.sources and len(protocol.seeds) < len(SEEDS):
        departures.append(f"{_count(len(protocol.seeds), 'seed')} instead of {len(SEEDS)}")
    if "rgbd" in experiment.sources and len(protocol.splits) < len(SPLITS):
        departures.append(f"{_count(len(protocol.splits), 'split')} instead of {len(SPLITS)}")
    for spec, run in work:
        shard = run.job.shard
        fitting = fitting_preset(shard.preset, shard.modalities)
        preset = fitting if protocol.preset == PAPER else protocol.preset
        if preset != spec.source:
            departures.append(f"the settings of the preset '{preset}', not the paper's")
    departures += [f"{name} set to {value}, not the preset's" for name, value in protocol.values.items()]
    return tuple(dict.fromkeys(departures))


def _data_departures(spec: Spec, shard: Shard) -> list[str]:
    """How a shard departs from the paper's data."""
    if spec.source == "mnist":
        return [] if shard.dataset == spec.data else ["the 1,797 small digits of scikit-learn in the place of MNIST"]
    images, recipe = shard.provenance.get("images"), shard.provenance.get("recipe")
    if not isinstance(images, Mapping) or not isinstance(recipe, Mapping):
        return [f"the data set '{shard.dataset}' in the place of Washington RGB-D"]
    departures = []
    if images["dataset"] != RGBD:
        departures.append("a small rendered sample in the place of Washington RGB-D: the numbers are the sample's")
    weights, tuning, image = shard.provenance["weights"], recipe["settings"], images["settings"]
    paper = printed_numbers.load().features
    if weights == "random":
        departures.append("features of a VGG16 with random weights")
    if tuning["epochs"] != paper.epochs:
        departures.append(f"VGG16 fine-tuned for {_count(tuning['epochs'], 'epoch')} instead of {paper.epochs}")
    if tuning["labelled"] != paper.labelled:
        departures.append(f"{tuning['labelled']:.0%} of the training images labelled instead of {paper.labelled:.0%}")
    for name, value in {"size": paper.size, "depth_encoding": paper.depth_encoding}.items():
        if image[name] != value:
            departures.append(f"images with a {name.replace('_', ' ')} of {image[name]} instead of {value}")
    return departures


def _comparable(spec: Spec, shard: Shard) -> bool:
    """Whether a shard holds the paper's own data, however its features were made."""
    if spec.source == "mnist":
        return shard.dataset == spec.data
    images = shard.provenance.get("images")
    return isinstance(images, Mapping) and images.get("dataset") == RGBD


def measure(plan: Plan, experiment: Experiment, device: torch.device) -> ExperimentResult:
    """The results of an experiment's finished runs next to the paper's numbers; missing numbers have a note."""
    work = plan.of(experiment)
    done = [run for run in work if run.done]
    notes = list(experiment.notes)
    if len(done) < len(work):
        notes.insert(0, f"INCOMPLETE: {len(done)} of {len(work)} runs are done; the same command goes on.")
    shards = [(spec, run.job.shard) for spec in experiment.specs() for run in plan.work[spec]]
    blocks = tuple(_block(plan, experiment.name, grid) for grid in experiment.grids)
    measured = [cell.measured for block in blocks for row in block.rows for cell in row.cells if cell.measured]
    if "rgbd" in experiment.sources and any(number.ci95 is not None for number in measured):
        notes.append(f"Runs are splits: {SPLITS_OVERLAP}.")
    return ExperimentResult(
        name=experiment.name,
        title=experiment.title,
        reduced=reduced(plan, experiment),
        comparable=all(_comparable(spec, shard) for spec, shard in shards),
        blocks=blocks,
        runs=tuple(run.folder.name for run in done),
        notes=tuple(notes),
        settings=_common([run.job.settings.model_dump(mode="json") for run in work]),
        provenance=_provenance(done, device),
    )


def draw(
    plan: Plan, experiment: Experiment, result: ExperimentResult, folder: Path, device: torch.device
) -> ExperimentResult:
    """Draws a figure as `figure4.svg` in the folder once all its runs are done, and adds it to the result.

    Tables have no picture.
    """
    work = plan.of(experiment)
    if not experiment.name.startswith("figure") or not all(run.done for run in work):
        return result
    name, runs = f"{experiment.name}.svg", [run.run for run in work]
    if experiment.name == "figure4":
        figure = plots.alpha_figure(runs)
    elif experiment.name == "figure5":
        figure = generation_figure(runs, device)
    else:
        figure = plots.splits_figure(runs)
        for panel, grid in zip(figure.axes, experiment.grids, strict=True):
            panel.set_title(grid.title)
    if result.reduced:
        announce(figure, f"REDUCED: {'; '.join(result.reduced)}.")
    save(figure, folder / name)
    return result.model_copy(update={"figure": name})


def write(result: ExperimentResult, folder: Path) -> tuple[Path, Path]:
    """Writes `table4.json` and `table4.md` into the folder."""
    paths = folder / f"{result.name}.json", folder / f"{result.name}.md"
    write_result(paths[0], result)
    write_if_changed(paths[1], markdown(result))
    return paths


def write_all(
    plan: Plan, experiments: Sequence[Experiment], folder: Path, device: torch.device
) -> tuple[list[ExperimentResult], list[Path]]:
    """Measures, draws and writes experiments as far as their runs are done.

    Returns:
        The results, and the files written.
    """
    measured = [measure(plan, experiment, device) for experiment in experiments]
    results = [
        draw(plan, experiment, result, folder, device) for experiment, result in zip(experiments, measured, strict=True)
    ]
    paths = [path for result in results for path in write(result, folder)]
    return results, paths + [folder / result.figure for result in results if result.figure is not None]


def outputs(experiments: Sequence[Experiment], folder: Path) -> list[Path]:
    """Each experiment's JSON file, which stands for all files that are written for it."""
    return [folder / f"{experiment.name}.json" for experiment in experiments]


def check_folder(plan: Plan, folder: Path) -> None:
    """Refuses to overwrite full results with reduced ones.

    Raises:
        UsageError: the folder holds full results.
        DataError: it holds a file of the same name that is not an experiment result.
    """
    for experiment, path in zip(plan.experiments, outputs(plan.experiments, folder), strict=True):
        if path.exists() and reduced(plan, experiment) and not read_result(path).reduced:
            raise UsageError(
                f"{path} holds the result of full runs, and this would be a reduced one", "choose another --out FOLDER"
            )


def _block(plan: Plan, name: str, grid: Grid) -> Block:
    rows = dict.fromkeys(number.row for number in grid.numbers)
    by_cell = {(number.row, number.column): number for number in grid.numbers}
    table = printed_numbers.load().tables.get(name)

    def cell(row: str, column: str) -> Cell:
        number = by_cell.get((row, column))
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
    """The number from the runs that are done, and a note about those that are not."""
    work = plan.work[number.spec]
    if number.split is not None:
        work = tuple(run for run in work if run.job.settings.split == number.split)
        if not work:
            return None, "this split was not asked for"
    done = [run for run in work if run.done]
    if not done:
        return None, "no run of it is done" + (f" ({status(work[0])})" if work[0].begun else "")
    values = []
    for run in done:
        scores = run.run.result().scores
        accuracy = {(score.given, score.completion): score.accuracy for score in scores}
        if (number.given, number.completion) not in accuracy:
            return None, f"the runs have no score given {number.given} by {number.completion}"
        values.append(100 * accuracy[number.given, number.completion])
    return (
        Measured(
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if len(values) > 1 else None,
            values=tuple(values),
            runs=tuple(run.folder.name for run in done),
        ),
        f"{len(done)} of {len(work)} runs are done" if len(done) < len(work) else "",
    )


def _provenance(done: Sequence[PlannedRun], device: torch.device) -> dict[str, Any]:
    provenances = [run.run.provenance() for run in done]
    return {
        **environment(device),
        "the paper": printed_numbers.load().source,
        "runs trained on": sorted({f"{values.get('device')}, torch {values.get('torch')}" for values in provenances}),
        "runs computed in": sorted({str(values.get("precision")) for values in provenances}),
        "runs lie in": str(done[0].folder.parent.resolve()) if done else "",
    }


def _common(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all runs have in common."""
    return {key: value for key, value in settings[0].items() if all(values[key] == value for values in settings)}


def _count(number: int, unit: str) -> str:
    """`1 epoch`, `2 epochs`, `2 rounds of co-training`."""
    first, *rest = unit.split(" ")
    return " ".join([f"{number} {first}{'' if number == 1 else 's'}", *rest])
