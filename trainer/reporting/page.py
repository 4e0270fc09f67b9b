"""One page of results: experiments next to the paper's numbers, and runs with their curves.

`read` finds what to show and `compose` makes the page's content; `trainer.reporting.render` turns it into a file.
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from pipeline.runtime.errors import DataError
from pipeline.runtime.texts import read_text
from pipeline.runtime.versions import versions
from pipeline.shards.schema import VALIDATION
from trainer.models.registry import model_names
from trainer.reporting.comparison import TOLERANCE, ExperimentResult, read_result
from trainer.reporting.page_figures import ModelFigures, ModelsSection, Picture, draw_models, pictures
from trainer.reporting.plot_style import data_uri, render
from trainer.reporting.rival_comparison import (
    KEPT_SCORES,
    Gain,
    RivalComparison,
    gains,
    is_comparison,
    read_comparison,
    summary_of_gains,
)
from trainer.reporting.rival_figure import rival_figure
from trainer.reporting.run_tables import NOTHING_MEASURED, ResultTable, content_of, grouped, table
from trainer.settings.describe import names
from trainer.settings.presets import PAPER_DATA, paper_epochs
from trainer.training.run_folder import Run, find
from trainer.training.run_listing import SETTINGS, find_folders

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperimentSection:
    """The page's section about an experiment; `anchor` is its address on the page, `source` the result's file."""

    anchor: str
    source: Path
    result: ExperimentResult
    picture: Picture | None


@dataclass(frozen=True)
class DataSetSection:
    """The page's section about the runs on one data set.

    Attributes:
        caveats: what a reader has to know before comparing numbers.
        results: scores of the finished runs; None if there are none, or nothing to measure them on.
        settings: runs that differ only in seed and split, under the title of their common settings.
        unfinished: one line per unfinished run.
        pictures: those of all runs together.
        closer: for each model, the pictures of one of its runs.
        apart: why some models are not among the generated images, one sentence per reason.
        missing: why pictures that need a model could not be drawn.
    """

    anchor: str
    name: str
    caveats: tuple[str, ...]
    results: ResultTable | None
    runs: tuple[Run, ...]
    settings: tuple[tuple[str, tuple[Run, ...]], ...]
    unfinished: tuple[str, ...]
    pictures: tuple[Picture, ...]
    closer: tuple[ModelFigures, ...]
    apart: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def part(self) -> str:
        """The part of the data that the scores are of."""
        return "validation" if self.runs[0].settings.data.endswith(VALIDATION) else "test"


@dataclass(frozen=True)
class RivalSection:
    """The page's section about a comparison with rivals: what is gained, in sentences and by number of labels."""

    anchor: str
    source: Path
    comparison: RivalComparison
    summary: tuple[str, ...]
    gains: tuple[Gain, ...]
    picture: Picture


@dataclass(frozen=True)
class Summary:
    """How the numbers compare that both the paper and we have.

    Attributes:
        compared: how many there are.
        reached: how many of ours are at most the tolerance below the paper's.
        mean: mean difference, in percentage points.
        worst: the largest shortfall, and where it is; None if no number falls short.
    """

    compared: int
    reached: int
    mean: float
    worst: tuple[float, str] | None


@dataclass(frozen=True)
class Page:
    """The report's content, before it is rendered."""

    made: str
    version: str
    results: tuple[ExperimentSection, ...]
    summary: Summary | None
    data_sets: tuple[DataSetSection, ...]
    rivals: tuple[RivalSection, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What lies in some files and folders: experiment results and comparisons with their files, and runs.

    `left_out` are the paths that were given and could not be read.
    """

    results: tuple[tuple[Path, ExperimentResult], ...]
    runs: tuple[Run, ...]
    comparisons: tuple[tuple[Path, RivalComparison], ...]
    left_out: tuple[Path, ...] = ()


def read(paths: Sequence[Path], places: Sequence[Path] = ()) -> Contents:
    """Reads the results, tables first, and the runs in these files and folders and anywhere below them.

    What cannot be read is named in the log and left out.

    Args:
        places: where to look for the shards of runs, if they have moved.

    Raises:
        DataError: a path does not exist, or nothing is found that can be read.
    """
    results, runs, comparisons, faults = [], dict[Path, Run](), [], list[Path]()
    first: DataError | None = None
    for path in paths:
        if not path.exists():
            raise DataError(f"there is no {path}", "train a run: mmssl train sshmvae-kl")
        runs_below = find([path], places) if path.is_dir() else []
        if (path / SETTINGS).exists() and not runs_below:
            faults.append(path)  # the log says why
            continue
        runs |= {run.folder: run for run in runs_below}
        for file in [path] if path.is_file() else _files_below(path):
            try:
                if is_comparison(file):
                    comparisons.append((file, read_comparison(file)))
                elif file == path or _is_experiment_result(file):
                    results.append((file, read_result(file)))
                    _experiment_section(0, *results[-1])
            except DataError as error:
                results = [pair for pair in results if pair[0] != file]
                first = first or error
                if file == path:
                    faults.append(path)
                _log.warning("left out: %s", error.message)
    if not results and not runs and not comparisons:
        if first is not None:
            raise first
        where = ", ".join(map(str, paths))
        raise DataError(f"{where}: there is neither a run nor a result to report", "train one: mmssl train sshmvae-kl")
    results.sort(key=lambda pair: (pair[1].name.startswith("figure"), _natural(pair[1].name)))
    return Contents(tuple(results), tuple(runs.values()), tuple(comparisons), tuple(faults))


def _files_below(folder: Path) -> list[Path]:
    """The JSON files in a folder that may be results: not those of runs, nor of hidden folders."""
    of_runs = set(find_folders([folder]))
    files = sorted(file for file in folder.rglob("*.json") if file.parent not in of_runs)
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def compose(
    results: Sequence[tuple[Path, ExperimentResult]],
    runs: Sequence[Run],
    device: torch.device,
    models: bool = True,
    comparisons: Sequence[tuple[Path, RivalComparison]] = (),
) -> Page:
    """Composes the page from experiment results and comparisons with their files, and runs.

    Args:
        models: whether to draw what needs the models and their data: generated images, latent spaces, confusions.

    Raises:
        DataError: a run or a picture cannot be read.
    """
    sections = tuple(_experiment_section(number, path, result) for number, (path, result) in enumerate(results, 1))
    data_sets = tuple(
        _data_set_section(f"data-{number}", name, data_runs, device, models)
        for number, (name, data_runs) in enumerate(_by_data(sorted(runs, key=_paper_order)).items(), 1)
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    rivals = tuple(_rival_section(number, path, compared) for number, (path, compared) in enumerate(comparisons, 1))
    return Page(made, versions()["mmssl"], sections, summarise(results), data_sets, rivals)


def summarise(results: Sequence[tuple[Path, ExperimentResult]]) -> Summary | None:
    """Compares our numbers with the paper's, over all cells that have both; None if there are none.

    Results on other data than the paper's are left out.
    """
    differences = []
    for _, result in results:
        for block in result.blocks if result.comparable else ():
            for row in block.rows:
                for column, cell in zip(block.columns, row.cells, strict=True):
                    if cell.difference is not None:
                        where = f"{result.name}, {block.title}, {row.name}, {column}"
                        differences.append((cell.difference, where))
    if not differences:
        return None
    worst = min(differences)
    return Summary(
        compared=len(differences),
        reached=sum(difference >= -TOLERANCE for difference, _ in differences),
        mean=sum(difference for difference, _ in differences) / len(differences),
        worst=worst if worst[0] < 0 else None,
    )


# --- comparisons with rivals -----------------------------------------------------------------------------------------


def _rival_section(number: int, path: Path, comparison: RivalComparison) -> RivalSection:
    title = f"Accuracy against labels on {comparison.data}"
    alt = "Test accuracy against the number of labels, a line for each system; the table has the numbers"
    return RivalSection(
        anchor=f"rivals-{number}",
        source=path,
        comparison=comparison,
        summary=tuple(summary_of_gains(comparison)),
        gains=tuple(gains(comparison)),
        picture=Picture(title, alt, data_uri(render(rival_figure(comparison), "svg"), ".svg")),
    )


# --- experiments -----------------------------------------------------------------------------------------------------


def _is_experiment_result(path: Path) -> bool:
    """Whether a JSON file is meant to be an experiment result; it may still be damaged."""
    try:
        values = json.loads(read_text(path))
    except (DataError, OSError, ValueError, RecursionError):
        values = None
    meant = isinstance(values, dict) and {"name", "title"} <= values.keys()
    kept_for_a_comparison = isinstance(values, dict) and values.get("kind") == KEPT_SCORES
    if not meant and not kept_for_a_comparison:
        _log.warning("left out %s: it is not an experiment result", path)
    return meant


def _experiment_section(number: int, path: Path, result: ExperimentResult) -> ExperimentSection:
    for block in result.blocks:
        if any(len(row.cells) != len(block.columns) for row in block.rows):
            raise DataError(f"{path}: {block.title} has rows that do not fit its {len(block.columns)} columns")
    picture = None
    if result.figure is not None:
        file = path.parent / result.figure
        if file.suffix.lower() not in (".svg", ".png") or Path(result.figure).name != result.figure:
            raise DataError(f"{path} names the picture {result.figure}, which is not a .svg or .png file next to it")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path} names the picture {file}, which cannot be read: {error.strerror}", "mmssl reproduce draws it"
            ) from None
        alt = f"{result.title}. {'The numbers are in the table.' if result.blocks else ''}".strip()
        picture = Picture(result.title, alt, data_uri(content, file.suffix.lower()))
    return ExperimentSection(f"result-{number}", path, result, picture)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts `table2` before `table10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


# --- runs ------------------------------------------------------------------------------------------------------------


def _data_set_section(
    anchor: str, name: str, runs: Sequence[Run], device: torch.device, models: bool
) -> DataSetSection:
    done = [run for run in runs if run.done]
    measured = [run for run in done if run.result().scores]
    unfinished = [
        f"{run.folder.name}: {len(run.metrics())} of {run.settings.epochs} epochs" for run in runs if not run.done
    ]
    models_section = draw_models(measured, device) if models and measured else ModelsSection()
    return DataSetSection(
        anchor=anchor,
        name=name,
        caveats=(*_caveats(runs), *([f"{NOTHING_MEASURED.capitalize()}."] if len(measured) < len(done) else [])),
        results=table(measured, titled=True) if measured else None,
        runs=tuple(runs),
        settings=tuple(_settings(runs)),
        unfinished=tuple(unfinished),
        pictures=(*pictures(name, runs, measured), *models_section.generated),
        closer=models_section.closer,
        apart=models_section.apart,
        missing=models_section.missing,
    )


def _by_data(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the name of their data, with the digest where several contents have one name."""
    contents: dict[str, set[str]] = {}
    for run in runs:
        contents.setdefault(run.settings.data, set()).add(content_of(run.settings))
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        name, content = run.settings.data, content_of(run.settings)
        several = len(contents[name]) > 1
        by_data.setdefault(f"{name} ({content[:8] or 'splits'})" if several else name, []).append(run)
    return by_data


def _settings(runs: Sequence[Run]) -> Iterator[tuple[str, tuple[Run, ...]]]:
    """Runs that differ only in seed and split, under the title of their common settings."""
    groups = grouped(runs)
    common, titles = names([group[0].settings for group in groups], titled=True)
    for group, title in zip(groups, titles, strict=True):
        yield title or common, tuple(group)


def _paper_order(run: Run) -> tuple[str, int, tuple[str, ...], float, str, float, float, int, int]:
    """A sort key: data, model, modalities, number of labels (many first), objective, alpha, beta, split and seed."""
    settings = run.settings
    fewer_labels = -settings.labels if isinstance(settings.labels, int) else float("-inf")
    return (
        settings.data,
        model_names().index(settings.model),
        settings.modalities,
        fewer_labels,
        settings.objective,
        settings.alpha,
        settings.beta,
        -1 if settings.split is None else settings.split,
        settings.seed,
    )


def _caveats(runs: Sequence[Run]) -> Iterator[str]:
    """How these runs depart from the paper's, one sentence each."""
    if runs[0].settings.data.endswith(VALIDATION):
        yield "Scores on a part of the training data, held out to choose settings: these are not test results."
    preset = PAPER_DATA.get(runs[0].settings.data)
    epochs = None if preset is None else paper_epochs(preset, "sshmvae")
    if epochs is None:
        yield "These are not the paper's data: no number here is comparable with its tables."
    trained = {run.settings.epochs for run in runs if run.settings.cotraining is None}
    fewer = sorted(count for count in trained if epochs is not None and count < epochs)
    if fewer:
        counts = f"{fewer[0]}" if len(fewer) == 1 else f"{fewer[0]} to {fewer[-1]}"
        yield f"Reduced: {counts} epoch{'s' if fewer[-1] > 1 else ''} instead of the paper's {epochs}."
    if all(len(group) == 1 for group in grouped(runs)):
        yield "One run per setting: differences may be due to chance."
