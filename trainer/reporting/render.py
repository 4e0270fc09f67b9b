"""Renders a page as one self-contained HTML file, as Markdown, or as JSON."""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import MmsslError
from pipeline.runtime.files import write_atomically
from pipeline.runtime.text import markdown as markdown_text
from trainer.evaluation.intervals import PLUS_MINUS
from trainer.evaluation.subsets import MOST_WITH_ALL_SHOWN, subset_title
from trainer.inference.loading import shard_path
from trainer.reporting.comparison import TOLERANCE, Block
from trainer.reporting.page import Page
from trainer.reporting.page_figures import runs_in_words
from trainer.reporting.rival_comparison import Gain, MeasuredMean
from trainer.reporting.run_tables import REPLICA_SETTINGS, ResultTable, run_as_dict
from trainer.reporting.template_environment import template_environment
from trainer.training.run_folder import Run


def replicas(block: Block) -> str:
    """How many runs a block's means are taken over: `5 runs`, `1 to 5 runs`; empty if nothing was measured."""
    counts = {len(cell.measured.values) for row in block.rows for cell in row.cells if cell.measured is not None}
    if not counts:
        return ""
    return runs_in_words(min(counts)) if len(counts) == 1 else f"{min(counts)} to {runs_in_words(max(counts))}"


def html(page: Page) -> str:
    """The page as one HTML file that needs no other file and no network."""
    return _template("report.html.jinja", escape=True, page=page)


def markdown(page: Page) -> str:
    """The page's tables and their explanations as Markdown, without pictures."""
    text = _template("report.md.jinja", escape=False, page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def as_json(page: Page) -> str:
    """The page's numbers, settings and provenance as JSON."""
    runs = [
        run_as_dict(run) | {"provenance": _made(run) if run.done else None}
        for data_set in page.data_sets
        for run in data_set.runs
    ]
    content = {
        "made": page.made,
        "mmssl": page.version,
        "summary": None if page.summary is None else asdict(page.summary),
        "comparisons": [section.comparison.model_dump(mode="json") for section in page.rivals],
        "outcomes": [section.result.model_dump(mode="json") for section in page.results],
        "tables": [
            {"data": data_set.name, "plus_minus": data_set.results.plus_minus} | asdict(data_set.results)
            for data_set in page.data_sets
            if data_set.results is not None
        ],
        "runs": runs,
    }
    return json.dumps(content, indent=2) + "\n"


def write(page: Page, path: Path, form: Callable[[Page], str]) -> None:
    """Writes the page to a file in one of its forms (`html`, `markdown`, `as_json`), atomically."""
    write_atomically(path, form(page))


def _template(name: str, *, escape: bool, **content: object) -> str:
    environment = template_environment(escape=escape)
    environment.filters |= {
        "signed": signed,
        "seconds": _seconds,
        "given_and_missing": _given_and_missing,
        "points": points,
        "pretty": _pretty,
        "md": markdown_text,
        "consecutive": _consecutive,
    }
    environment.globals |= {
        "PLUS_MINUS": PLUS_MINUS,
        "TOLERANCE": TOLERANCE,
        "common_settings": _common_settings,
        "pivot": pivot,
        "provenance": _provenance,
        "replicas": replicas,
    }
    return environment.get_template(name).render(**content)


def _consecutive(values: Iterable[Any], key: str | int) -> list[tuple[Any, list[Any]]]:
    """Groups neighbours with an equal attribute or entry; Jinja's own `groupby` would sort them."""

    def key_of(value: Any) -> Any:
        return value[key] if isinstance(key, int) else getattr(value, key)

    return [(shared, list(group)) for shared, group in itertools.groupby(values, key_of)]


def signed(difference: float) -> str:
    """`+0.31`, `−1.20`, `0.00`: a difference with a typographic sign, and none for zero."""
    rounded = f"{difference:+.2f}"
    return "0.00" if float(rounded) == 0 else rounded.replace("-", "\N{MINUS SIGN}")


def points(difference: MeasuredMean | None) -> str:
    """`+3.1 ± 0.9`: a difference in points with its half-width; a dash for None."""
    if difference is None:
        return "–"
    mean = f"{difference.mean:+.1f}".replace("-", "\N{MINUS SIGN}")
    return mean if difference.half_width is None else f"{mean} ± {difference.half_width:.1f}"


def _seconds(gain: Gain) -> str:
    """`20 / 0.1 / 0.4`: what our model, logistic regression and the best rival take; a dash for what is not there."""
    systems = (gain.ours, gain.simple, gain.best)
    return " / ".join("–" if system is None else f"{system.seconds:.3g}" for system in systems)


def _given_and_missing(gain: Gain, columns: Sequence[str]) -> str:
    """`x (w missing)`, or `x+w`; of many modalities `x alone`, or `all 6`."""
    names = columns[-1].split("+")
    missing = [name for name in names if name not in gain.given.split("+")]
    if not missing:
        return subset_title(gain.given, columns[-1])
    return (
        f"{gain.given} ({', '.join(missing)} missing)" if len(names) <= MOST_WITH_ALL_SHOWN else f"{gain.given} alone"
    )


def pivot(results: ResultTable) -> tuple[list[str], list[tuple[str, str, int, list[Any]]]]:
    """The subsets of modalities to show, and a line per setting and completion with one table row for each of them.

    A row with all modalities given needs no completion: it is in every line of its setting.
    """
    given = list(results.given)
    complete = {(row.setting, row.given): row for row in results.rows if row.completion == "all given"}
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in results.rows:
        if row.completion != "all given":
            lines.setdefault((row.setting, row.completion), {})[row.given] = row
        elif not any(setting == row.setting for setting, _ in lines):  # it comes last, so the setting has no other row
            lines[row.setting, row.completion] = {}
    return given, [
        (
            setting,
            completion,
            max(row.replicas for row in results.rows if row.setting == setting),
            [rows.get(subset) or complete.get((setting, subset)) for subset in given],
        )
        for (setting, completion), rows in lines.items()
    ]


def _common_settings(replicas: Sequence[Run]) -> dict[str, Any]:
    """The settings that replicas have in common."""
    return replicas[0].settings.model_dump(exclude=REPLICA_SETTINGS)


def _provenance(run: Run) -> dict[str, Any]:
    """What tells a run from its replicas, and where its numbers come from."""
    replica = {"seed": run.settings.seed, "split": run.settings.split, "digest of the shard": run.settings.digest}
    return replica | (_made(run) if run.done else {"done": False})


def _made(run: Run) -> dict[str, Any]:
    """A run's provenance, with the path at which its shard lies now, if it is anywhere."""
    values = run.provenance()
    with contextlib.suppress(MmsslError):
        values["shard"] = str(shard_path(run).resolve())
    return values


def _pretty(value: object) -> str:
    """A setting's value as a person would write it."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_pretty(entry)}" for key, entry in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_pretty, value)) or "-"
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
