"""One page of results: outcomes beside the paper's numbers, and runs with their curves, as HTML, Markdown or JSON.

The HTML is one file that needs no other and no network. `read` finds what to show, `compose` makes the page's content,
and the templates lay it out.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.errors import DataError, MmsslError
from pipeline.files import write_atomically
from pipeline.versions import versions
from trainer.drawing import data_uri, render
from trainer.figures import alpha_figure, curves_figure, labels_figure, splits_figure
from trainer.generation import Subject, draw_panels, image_shape, load_subjects, panels
from trainer.models.sdgm import SDGM
from trainer.outcomes import Block, Outcome, read_outcome
from trainer.portraits import confusion_figure, latent_figure, predict, reliability_figure
from trainer.presets import PRESETS
from trainer.report import TITLES, ResultTable, grouped, table
from trainer.runs import Run, find
from trainer.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)
_TEMPLATES = Path(__file__).parent / "templates"
NEAR = 0.5  # percentage points below the paper's number that still count as reaching it


@dataclass(frozen=True)
class Picture:
    """An image with all that is said about it; `uri` holds the image itself."""

    title: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Result:
    """An outcome as it is shown, with the address `anchor` on the page; `source` is its file."""

    anchor: str
    source: Path
    outcome: Outcome
    picture: Picture | None


@dataclass(frozen=True)
class Closer:
    """What one run's model does, in pictures."""

    run: str
    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class DataSet:
    """The runs on one data set.

    Attributes:
        caveats: what a reader has to know before comparing numbers.
        results: of those that are done; None for none.
        unfinished: one line a run.
        missing: why pictures that need a model are not there.
    """

    anchor: str
    name: str
    caveats: tuple[str, ...]
    results: ResultTable | None
    runs: tuple[Run, ...]
    unfinished: tuple[str, ...]
    pictures: tuple[Picture, ...]
    closer: tuple[Closer, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """How all numbers compare that both the paper and we have.

    Attributes:
        compared, reached: how many, and how many of ours are no more than `NEAR` below.
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


def read(paths: Sequence[Path]) -> tuple[list[tuple[Path, Outcome]], list[Run]]:
    """The outcomes and the runs in these files and folders, or anywhere below them.

    Raises:
        DataError: a path is not there, nothing is found, or what is found cannot be read.
    """
    outcomes, runs = [], []
    for path in paths:
        if path.is_file():
            outcomes.append((path, read_outcome(path)))
        elif path.is_dir():
            found = find([path])
            runs += found
            inside = {run.folder for run in found}
            candidates = (file for file in path.rglob("*.json") if file.parent not in inside)
            outcomes += [(file, read_outcome(file)) for file in candidates if _is_outcome(file)]
        else:
            raise DataError(f"there is no {path}", "list runs: mmssl runs")
    if not outcomes and not runs:
        where = ", ".join(map(str, paths))
        raise DataError(f"{where}: there is neither a run nor a result to report", "train one: mmssl train sshmvae-kl")
    return sorted(outcomes, key=lambda pair: _natural(pair[1].name)), list({run.folder: run for run in runs}.values())


def compose(
    outcomes: Sequence[tuple[Path, Outcome]], runs: Sequence[Run], device: torch.device, models: bool = True
) -> Page:
    """The page's content.

    Args:
        models: whether to draw what needs the models and their data: generated images, latent spaces, confusions.

    Raises:
        DataError: a run or a picture cannot be read.
    """
    results = tuple(_result(number, path, outcome) for number, (path, outcome) in enumerate(outcomes, 1))
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        by_data.setdefault(run.settings.data, []).append(run)
    data_sets = tuple(
        _data_set(f"data-{number}", name, own, device, models) for number, (name, own) in enumerate(by_data.items(), 1)
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Page(made, versions()["mmssl"], results, summarise(outcomes), data_sets)


def summarise(outcomes: Sequence[tuple[Path, Outcome]]) -> Summary | None:
    """How our numbers compare with the paper's, over all cells that have both; None where there are none."""
    differences = []
    for _, outcome in outcomes:
        for block in outcome.blocks:
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
        reached=sum(difference >= -NEAR for difference, _ in differences),
        mean=sum(difference for difference, _ in differences) / len(differences),
        worst=worst if worst[0] < 0 else None,
    )


def replicas(block: Block) -> str:
    """Over how many runs a block's means are: `5 runs`, `1 to 5 runs`; empty where nothing was measured."""
    counts = {len(cell.measured.values) for row in block.rows for cell in row.cells if cell.measured is not None}
    if not counts:
        return ""
    return _runs(min(counts)) if len(counts) == 1 else f"{min(counts)} to {_runs(max(counts))}"


def html(page: Page) -> str:
    """The page as one HTML file."""
    return _template("report.html.jinja", escape=True, page=page)


def markdown(page: Page) -> str:
    """Its tables and what is said about them as Markdown; pictures stay out."""
    text = _template("report.md.jinja", escape=False, page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def as_json(page: Page) -> str:
    """Its numbers, settings and provenance as JSON."""
    runs = [
        {
            "folder": str(run.folder.resolve()),
            "settings": run.settings.model_dump(),
            "epochs": len(run.metrics()),
            "result": asdict(run.result()) if run.done else None,
            "provenance": run.provenance() if run.done else None,
        }
        for data_set in page.data_sets
        for run in data_set.runs
    ]
    content = {
        "made": page.made,
        "mmssl": page.version,
        "summary": None if page.summary is None else asdict(page.summary),
        "outcomes": [result.outcome.model_dump(mode="json") for result in page.results],
        "runs": runs,
    }
    return json.dumps(content, indent=2) + "\n"


def write(page: Page, path: Path, form: Callable[[Page], str]) -> None:
    """Writes the page to a file in one of its forms (`html`, `markdown`, `as_json`), whole or not at all."""
    write_atomically(path, form(page))


# --- outcomes --------------------------------------------------------------------------------------------------------


def _is_outcome(path: Path) -> bool:
    """Whether a JSON file is meant as an outcome; it may still be damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    meant = isinstance(values, dict) and {"name", "title"} <= values.keys()
    if not meant:
        _log.warning("left out %s: it is no outcome of an experiment", path)
    return meant


def _result(number: int, path: Path, outcome: Outcome) -> Result:
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
    closer, missing, generated = _closer(done, device) if models and done else ((), (), ())
    return DataSet(
        anchor=anchor,
        name=name,
        caveats=tuple(_caveats(runs)),
        results=table(done) if done else None,
        runs=tuple(runs),
        unfinished=tuple(unfinished),
        pictures=(*_pictures(name, runs, done), *generated),
        closer=closer,
        missing=missing,
    )


def _caveats(runs: Sequence[Run]) -> Iterator[str]:
    """What makes these runs unlike the paper's."""
    first = runs[0].settings
    epochs = _epochs_of_the_paper(first)
    if epochs is None:
        yield "These data are not the paper's: no number here compares with its tables."
    for run in runs:
        if epochs is not None and run.settings.epochs < epochs:
            few = sorted({one.settings.epochs for one in runs if one.settings.epochs < epochs})
            counts = f"{few[0]}" if len(few) == 1 else f"{few[0]} to {few[-1]}"
            yield f"Reduced: {counts} epochs instead of the paper's {epochs}."
            break
    if all(len(group) == 1 for group in grouped(runs)):
        yield "One run a setting: differences may be chance."


def _epochs_of_the_paper(settings: Settings) -> int | None:
    for prefix, preset in (("hm-mnist", "mnist"), ("nm-mnist", "mnist"), ("rgbd", "rgbd")):
        if settings.data.startswith(prefix) and "sample" not in settings.data:
            return int(PRESETS[preset]("ssmvae")["epochs"])
    return None


def _pictures(name: str, runs: Sequence[Run], done: Sequence[Run]) -> Iterator[Picture]:
    """What needs no model."""
    trained = [run for run in runs if (rows := run.metrics()) and any(key.startswith("accuracy ") for key in rows[0])]
    if trained:
        yield _picture(
            f"Training on {name}",
            f"Test accuracy after each epoch, for every subset of modalities, of {_runs(len(trained))} on {name}",
            curves_figure(trained),
        )
    if _vary(trained, "alpha"):
        own = [run for run in trained if run.settings.model in _vary(trained, "alpha")]
        yield _picture(
            "The classifier's weight alpha",
            f"Test accuracy per epoch given all modalities, a line for each alpha, on {name}",
            alpha_figure(own),
        )
    if _vary(done, "labels"):
        own = [run for run in done if run.settings.model in _vary(done, "labels")]
        yield _picture(
            "Accuracy against labels",
            f"Test accuracy against the number of labelled examples, for every subset of modalities, on {name}",
            labels_figure(own),
        )
    split = [run for run in done if run.settings.split is not None]
    if len({run.settings.split for run in split}) > 1:
        yield _picture(
            "Accuracy per split",
            f"Test accuracy on each split, given each modality alone, on {name}",
            splits_figure(split),
        )


def _vary(runs: Sequence[Run], setting: str) -> set[str]:
    """The models that were trained with more than one value of a setting, all else being equal."""
    values: dict[tuple[str, str], set[object]] = {}
    for run in runs:
        rest = run.settings.model_dump_json(exclude={"seed", "split", "digest", setting})
        values.setdefault((run.settings.model, rest), set()).add(getattr(run.settings, setting))
    return {model for (model, _), own in values.items() if len(own) > 1}


def _closer(
    done: Sequence[Run], device: torch.device
) -> tuple[tuple[Closer, ...], tuple[str, ...], tuple[Picture, ...]]:
    """What the models do, in pictures: of the first run of each model; what could not be drawn; generated images."""
    first: dict[str, Run] = {}
    for run in done:
        first.setdefault(run.settings.model, run)
    closer, missing, able = [], [], []
    for run in first.values():
        try:
            (subject,) = load_subjects([run], device)
        except MmsslError as error:
            _log.warning("%s", error.message)
            missing.append(error.message)
            continue
        closer.append(Closer(run.folder.name, TITLES[run.settings.model], tuple(_portraits(subject))))
        modalities = [modality.name for modality in subject.data.modalities]
        images = all(image_shape(subject.shard, modality) is not None for modality in modalities)
        if len(modalities) > 1 and images and not isinstance(subject.model, SDGM):
            able.append(run)
    generated = []
    if able:
        generated.append(
            _picture(
                "One modality made from the other",
                "Rows of images: the true modality on top, under it what each model makes of it from the other; "
                "one test example of each class a column",
                draw_panels(panels(able, device)),
            )
        )
    return tuple(closer), tuple(missing), tuple(generated)


def _portraits(subject: Subject) -> Iterator[Picture]:
    found = predict(subject)
    accuracy = ", ".join(
        f"{100 * float((log_q.argmax(-1) == label).mean()):.1f} % given {given}"
        for given, (log_q, label) in found.items()
    )
    title = TITLES[subject.run.settings.model]
    yield _picture(
        "Latent space", f"Two principal components of {title}'s latent space, by class", latent_figure(subject)
    )
    yield _picture(
        "Confusions (% of the true class)",
        f"Confusion matrices of {title}; right are {accuracy}",
        confusion_figure(found, subject.data.classes),
    )
    yield _picture("Reliability", f"Accuracy against confidence of {title}", reliability_figure(found))


def _picture(title: str, alt: str, figure: "Figure") -> Picture:
    return Picture(title, alt, data_uri(render(figure, "svg"), ".svg"))


# --- templates -------------------------------------------------------------------------------------------------------


def _template(name: str, *, escape: bool, **content: object) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"signed": signed, "pretty": _pretty, "md": _md}
    environment.globals |= {"replicas": replicas, "pivot": pivot, "NEAR": NEAR, "provenance": _provenance}
    return environment.get_template(name).render(**content)


def signed(difference: float) -> str:
    """`+0.31`, `−1.20`, `0.00`: with a sign of its own width."""
    rounded = f"{difference:+.2f}"
    return "0.00" if float(rounded) == 0 else rounded.replace("-", "\N{MINUS SIGN}")


def pivot(results: ResultTable) -> tuple[list[str], list[tuple[str, str, int, list[Any]]]]:
    """The given modalities, and the table's rows by setting and means with one entry for each of them.

    What needs no means, because all is given, stands in every row of its setting.
    """
    given = list(dict.fromkeys(row.given for row in results.rows))
    whole = {(row.setting, row.given): row for row in results.rows if row.means == "all given"}
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in results.rows:
        if row.means != "all given":
            lines.setdefault((row.setting, row.means), {})[row.given] = row
    for setting, _ in whole:
        if not any(one == setting for one, _ in lines):
            lines[setting, "all given"] = {}
    return given, [
        (
            setting,
            means,
            max(row.replicas for row in results.rows if row.setting == setting),
            [own.get(one) or whole.get((setting, one)) for one in given],
        )
        for (setting, means), own in lines.items()
    ]


def _provenance(run: Run) -> dict[str, Any]:
    return run.provenance() if run.done else {}


def _pretty(value: object) -> str:
    """A setting's value as a person writes it."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_pretty(one)}" for key, one in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_pretty, value)) or "-"
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _md(text: object) -> str:
    """Text that Markdown takes as it is, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(str(text).split()))


def _runs(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"
