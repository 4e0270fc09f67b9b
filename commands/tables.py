"""Tables that commands print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from commands import messages

if TYPE_CHECKING:
    from pipeline.datasets.catalogue import Known
    from pipeline.shards.summary import Description
    from trainer.evaluation.metrics import Evaluation
    from trainer.jobs.stacks import PlannedRun, Stack
    from trainer.reporting.comparison import ExperimentResult
    from trainer.reporting.run_tables import ResultTable
    from trainer.training.run_folder import Run
    from trainer.training.run_listing import ListedRun


def data_sets(known: Sequence["Known"]) -> None:
    table = Table("name", "what", "MB", "licence", "at hand")
    for one in known:
        size = f"{one.size / 1e6:,.0f}" if one.size else "-"
        table.add_row(one.name, one.title, size, one.licence, "-" if one.place is None else str(one.place))
    messages.out.print(table)


def shard(found: "Description") -> None:
    """What is in a shard: its modalities, its classes and its provenance."""
    split = "" if found.split is None else f", split {found.split}"
    labelled = "not fixed by the data" if found.labelled is None else str(found.labelled)
    messages.say(f"{found.path}: {found.dataset}{split}")
    messages.say(f"{found.train_rows} training and {found.test_rows} test examples; labelled: {labelled}")
    table = Table("modality", "width", "distribution", "smallest", "mean", "largest")
    for m in found.modalities:
        table.add_row(m.name, str(m.width), m.distribution, f"{m.min:.4g}", f"{m.mean:.4g}", f"{m.max:.4g}")
    messages.out.print(table)
    table = Table("class", "training", "test", "labelled")
    for c in (*found.classes, *([found.unknown] if found.unknown.train or found.unknown.test else [])):
        table.add_row(c.name, str(c.train), str(c.test), "-" if c.labelled is None else str(c.labelled))
    messages.out.print(table)
    messages.say(f"digest {found.digest}{'' if found.digest_recorded else ' (computed, not recorded)'}")
    messages.as_json(found.provenance)


def runs(listed: Sequence["ListedRun"]) -> None:
    """Runs, how far they are, and their accuracies."""
    table = Table(Column("run", overflow="fold"), "epochs", "accuracy (%)")
    for run in listed:
        accuracies = "[yellow]not done[/]" if run.result is None else _accuracies(run.result)
        table.add_row(run.folder.name, f"{run.epochs} of {run.all_epochs}", accuracies)
    messages.out.print(table)


def _accuracies(result: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{s['given']}{' (iterative)' if s['completion'] == 'iterative' else ''} {100 * s['accuracy']:.2f}"
        for s in result["scores"]
    )


def listed_run_as_dict(run: "ListedRun") -> dict[str, Any]:
    """A listed run for programs."""
    return {
        "folder": str(run.folder.resolve()),
        "settings": run.settings,
        "epochs": run.epochs,
        "result": run.result,
    }


def evaluation(title: str, result: "Evaluation") -> None:
    """One run's scores for every subset of modalities."""
    from trainer.evaluation.metrics import COMPLETION_TITLES

    table = Table("given", "how", "accuracy (%)", "nll", "ece", title=title, title_justify="left")
    for score in result.scores:
        table.add_row(
            score.given,
            COMPLETION_TITLES[score.completion],
            f"{100 * score.accuracy:.2f}",
            f"{score.nll:.3f}",
            f"{score.ece:.3f}",
        )
    messages.out.print(table)
    messages.say(f"ELBO per test example: {'-' if result.elbo is None else f'{result.elbo:.2f} nats'}")


def results(found: "ResultTable", done: Sequence["Run"]) -> None:
    """A table of trained runs, and where they lie."""
    several = any(row.setting for row in found.rows)
    table = Table(*(["setting"] if several else []), "given", "how", "accuracy (%)", "nll", "ece", "replicas")
    before = ""
    for row in found.rows:
        spread = "" if row.accuracy_std is None else f" ± {row.accuracy_std:.2f}"
        cells = [row.given, row.completion, f"{row.accuracy:.2f}{spread}", f"{row.nll:.3f}", f"{row.ece:.3f}"]
        if several and before and row.setting != before:
            table.add_section()
        table.add_row(*([row.setting if row.setting != before else ""] if several else []), *cells, str(row.replicas))
        before = row.setting
    messages.say(found.common)
    messages.out.print(table)
    for run in done:
        messages.say(str(run.folder.resolve()))


def demo_step(number: int, what: str, real: str) -> None:
    """What the demo does next, and the command that does it with real data."""
    messages.out.print(
        f"{number}/4  {messages.plain(what)}. For real: [bold]{messages.plain(real)}[/]",
        highlight=False,
        soft_wrap=True,
    )


def failures(found: "ResultTable", classes: int) -> None:
    """What the models can do with both cameras, and with each alone."""
    cameras = {"x+w": "both", "x": "RGB alone", "w": "depth alone"}
    table = Table("model", "cameras", "for the missing one", "accuracy (%)")
    before = ""
    for row in sorted(found.rows, key=lambda row: (row.setting, row.completion != "all given")):
        if before and row.setting != before:
            table.add_section()
        completion = "-" if row.completion == "all given" else row.completion
        table.add_row(
            row.setting if row.setting != before else "", cameras[row.given], completion, f"{row.accuracy:.1f}"
        )
        before = row.setting
    count = found.rows[0].replicas
    messages.say(
        f"{found.common}; objects that no model has seen, {classes} categories (chance {100 / classes:.0f} %), "
        f"mean over {count} split{'s' if count > 1 else ''}"
    )
    messages.out.print(table)
    messages.say(
        "The features come from random weights and the numbers are the rendered sample's: they show how the models "
        "work, and say nothing of the paper's data."
    )


def planned(work: Sequence["PlannedRun"], todo: Sequence["Stack"], in_json: bool) -> None:
    """The runs that experiments need, and how far each is."""
    from trainer.jobs.stacks import status

    if in_json:
        messages.as_json([{"folder": one.folder.resolve(), "state": status(one)} for one in work])
        return
    table = Table(Column("run", overflow="fold"), "state")
    for one in work:
        table.add_row(one.folder.name, status(one))
    messages.out.print(table)
    missing = sum(len(part.folders) for part in todo)
    messages.say(f"{len(work)} runs, {len(work) - missing} of them done; {missing} to train, in {len(todo)} stacks")


def experiments(found: Sequence["ExperimentResult"], paths: Sequence[Path], in_json: bool) -> None:
    """Tables beside the paper's, and where they were written."""
    from trainer.reporting.comparison_tables import legend, text

    if in_json:
        messages.as_json([outcome.model_dump(mode="json") for outcome in found])
        return
    for outcome in found:
        messages.out.print(
            f"[bold]{messages.plain(f'{outcome.name}: {outcome.title}')}[/]", highlight=False, soft_wrap=True
        )
        for line in legend(outcome):
            messages.say(line)
        for block in outcome.blocks:
            systems, notes = text(block, outcome.comparable)
            beside = ("paper", "ours (runs)", "difference") if outcome.printed else ("ours (runs)",)
            table = Table("", "", *beside, "", title=block.title, title_justify="left")
            for name, cells in systems:
                shown = [(column, cell) for column, cell in zip(block.columns, cells, strict=True) if cell is not None]
                for number, (column, cell) in enumerate(shown):
                    difference = f"[red]{cell.difference} low[/]" if cell.low else cell.difference
                    first = "" if number else messages.plain(name)
                    values = (cell.paper, cell.ours, difference) if outcome.printed else (cell.ours,)
                    table.add_row(first, column, *values, cell.mark)
                if len(block.columns) > 1:
                    table.add_section()
            messages.out.print(table)
            for number, note in enumerate(notes, 1):
                messages.say(f"†{number}: {note}")
        messages.out.print()
    for path in paths:
        messages.say(str(path.resolve()))
