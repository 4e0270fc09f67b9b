"""One page of results: outcomes beside the paper's numbers, and runs with their curves.

`read` finds what to show and `compose` makes the page's content; `trainer.reporting.render` gives it a form.
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.errors import DataError
from pipeline.runtime.versions import versions
from trainer.models.registry import model_names
from trainer.reporting.comparison import TOLERANCE, ExperimentResult, read_result
from trainer.reporting.page_figures import ModelFigures, ModelsSection, Picture, draw_models, pictures
from trainer.reporting.plot_style import data_uri
from trainer.reporting.run_tables import ResultTable, grouped, table
from trainer.settings.describe import names
from trainer.settings.presets import PAPER_DATA, paper_epochs
from trainer.training.run_folder import Run, find

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """An outcome as it is shown, with the address `anchor` on the page; `source` is its file."""

    anchor: str
    source: Path
    outcome: ExperimentResult
    picture: Picture | None


@dataclass(frozen=True)
class Setting:
    """Runs that differ in seed and split alone, and the settings that they have in common."""

    title: str
    values: dict[str, Any]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class DataSet:
    """The runs on one data set.

    Attributes:
        caveats: what a reader has to know before comparing numbers.
        results: of those that are done; None for none.
        unfinished: one line a run.
        apart: which models have no such pictures, a sentence each.
        missing: why pictures that need a model are not there although they should be.
    """

    anchor: str
    name: str
    caveats: tuple[str, ...]
    results: ResultTable | None
    runs: tuple[Run, ...]
    settings: tuple[Setting, ...]
    unfinished: tuple[str, ...]
    pictures: tuple[Picture, ...]
    closer: tuple[ModelFigures, ...]
    apart: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """How all numbers compare that both the paper and we have.

    Attributes:
        compared, reached: how many, and how many of ours are no more than the tolerance below.
        mean: of the differences, in percentage points.
        worst: the largest shortfall, and where it is; None where nothing is short.
    """

    compared: int
    reached: int
    mean: float
    worst: tuple[float, str] | None


@dataclass(frozen=True)
class Page:
    """All that is shown."""

    made: str
    version: str
    results: tuple[Result, ...]
    summary: Summary | None
    data_sets: tuple[DataSet, ...]


def read(paths: Sequence[Path]) -> tuple[list[tuple[Path, ExperimentResult]], list[Run]]:
    """The outcomes, tables first, and the runs in these files and folders, or anywhere below them.

    Raises:
        DataError: a path is not there, nothing is found, or what is found cannot be read.
    """
    outcomes, runs = [], []
    for path in paths:
        if path.is_file():
            outcomes.append((path, read_result(path)))
        elif path.is_dir():
            found = find([path])
            runs += found
            inside = {run.folder for run in found}
            candidates = (file for file in path.rglob("*.json") if file.parent not in inside)
            outcomes += [(file, read_result(file)) for file in candidates if _is_experiment_result(file)]
        else:
            raise DataError(f"there is no {path}", "train a run: mmssl train sshmvae-kl")
    if not outcomes and not runs:
        where = ", ".join(map(str, paths))
        raise DataError(f"{where}: there is neither a run nor a result to report", "train one: mmssl train sshmvae-kl")
    outcomes.sort(key=lambda pair: (pair[1].name.startswith("figure"), _natural(pair[1].name)))
    return outcomes, list({run.folder: run for run in runs}.values())


def compose(
    outcomes: Sequence[tuple[Path, ExperimentResult]], runs: Sequence[Run], device: torch.device, models: bool = True
) -> Page:
    """The page's content.

    Args:
        models: whether to draw what needs the models and their data: generated images, latent spaces, confusions.

    Raises:
        DataError: a run or a picture cannot be read.
    """
    results = tuple(_result(number, path, outcome) for number, (path, outcome) in enumerate(outcomes, 1))
    by_data: dict[str, list[Run]] = {}
    for run in sorted(runs, key=_as_in_the_paper):
        by_data.setdefault(run.settings.data, []).append(run)
    data_sets = tuple(
        _data_set(f"data-{number}", name, own, device, models) for number, (name, own) in enumerate(by_data.items(), 1)
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Page(made, versions()["mmssl"], results, summarise(outcomes), data_sets)


def summarise(outcomes: Sequence[tuple[Path, ExperimentResult]]) -> Summary | None:
    """How our numbers compare with the paper's, over all cells that have both; None where there are none.

    Outcomes on other data than the paper's are left out.
    """
    differences = []
    for _, outcome in outcomes:
        for block in outcome.blocks if outcome.comparable else ():
            for row in block.rows:
                for column, cell in zip(block.columns, row.cells, strict=True):
                    if cell.difference is not None:
                        where = f"{outcome.name}, {block.title}, {row.name}, {column}"
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


# --- outcomes --------------------------------------------------------------------------------------------------------


def _is_experiment_result(path: Path) -> bool:
    """Whether a JSON file is meant as an outcome; it may still be damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    meant = isinstance(values, dict) and {"name", "title"} <= values.keys()
    if not meant:
        _log.warning("left out %s: it is no outcome of an experiment", path)
    return meant


def _result(number: int, path: Path, outcome: ExperimentResult) -> Result:
    for block in outcome.blocks:
        if any(len(row.cells) != len(block.columns) for row in block.rows):
            raise DataError(f"{path}: {block.title} has rows that do not fit its {len(block.columns)} columns")
    picture = None
    if outcome.figure is not None:
        file = path.parent / outcome.figure
        if file.suffix.lower() not in (".svg", ".png") or Path(outcome.figure).name != outcome.figure:
            raise DataError(f"{path} names the picture {outcome.figure}, which is no .svg or .png file beside it")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path} names the picture {file}, which cannot be read: {error.strerror}", "mmssl reproduce draws it"
            ) from None
        alt = f"{outcome.title}. {'The numbers are in the table.' if outcome.blocks else ''}".strip()
        picture = Picture(outcome.title, alt, data_uri(content, file.suffix.lower()))
    return Result(f"result-{number}", path, outcome, picture)


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders `table2` before `table10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


# --- runs ------------------------------------------------------------------------------------------------------------


def _data_set(anchor: str, name: str, runs: Sequence[Run], device: torch.device, models: bool) -> DataSet:
    done = [run for run in runs if run.done]
    unfinished = [
        f"{run.folder.name}: {len(run.metrics())} of {run.settings.epochs} epochs" for run in runs if not run.done
    ]
    look = draw_models(done, device) if models and done else ModelsSection()
    return DataSet(
        anchor=anchor,
        name=name,
        caveats=tuple(_caveats(runs)),
        results=table(done, titled=True) if done else None,
        runs=tuple(runs),
        settings=tuple(_settings(runs)),
        unfinished=tuple(unfinished),
        pictures=(*pictures(name, runs, done), *look.generated),
        closer=look.closer,
        apart=look.apart,
        missing=look.missing,
    )


def _settings(runs: Sequence[Run]) -> Iterator[Setting]:
    groups = grouped(runs)
    common, titles = names([group[0].settings for group in groups], titled=True)
    for group, title in zip(groups, titles, strict=True):
        values = group[0].settings.model_dump(exclude={"seed", "split", "digest"})
        yield Setting(title or common, values, tuple(group))


def _as_in_the_paper(run: Run) -> tuple[str, int, tuple[str, ...], float, str, float, float, int, int]:
    """Orders runs by data, model, modalities, number of labels (many first), alpha, beta, split and seed."""
    own = run.settings
    few = -own.labels if isinstance(own.labels, int) else float("-inf")
    place = model_names().index(own.model)
    settings = (few, own.objective, own.alpha, own.beta, -1 if own.split is None else own.split, own.seed)
    return own.data, place, own.modalities, *settings


def _caveats(runs: Sequence[Run]) -> Iterator[str]:
    """What makes these runs unlike the paper's."""
    first = runs[0].settings
    preset = PAPER_DATA.get(first.data)
    epochs = None if preset is None else paper_epochs(preset, "sshmvae")
    if epochs is None:
        yield "These data are not the paper's: no number here compares with its tables."
    trained = {run.settings.epochs for run in runs if run.settings.cotraining is None}
    few = sorted(own for own in trained if epochs is not None and own < epochs)
    if few:
        counts = f"{few[0]}" if len(few) == 1 else f"{few[0]} to {few[-1]}"
        yield f"Reduced: {counts} epoch{'s' if few[-1] > 1 else ''} instead of the paper's {epochs}."
    if all(len(group) == 1 for group in grouped(runs)):
        yield "One run a setting: differences may be chance."
