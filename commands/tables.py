"""The tables that commands print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import messages
from commands.messages import Cell, Table

LEFT_OUT = 10  # rows that are listed one by one

if TYPE_CHECKING:
    from pipeline.datasets.catalogue import DataSetEntry
    from pipeline.shards.summary import Description
    from pipeline.sources.survey import Findings
    from trainer.evaluation.metrics import Evaluation
    from trainer.jobs.stacks import PlannedRun, Stack
    from trainer.reporting.comparison import ExperimentResult
    from trainer.reporting.rival_comparison import RivalComparison
    from trainer.reporting.run_tables import ResultTable, ScoreRow
    from trainer.training.run_folder import Run
    from trainer.training.run_listing import ListedRun


def data_sets(known: Sequence["DataSetEntry"]) -> None:
    """Prints the data sets, their sizes and where they are."""
    table = Table("name", "contents", "MB", "licence", "location")
    for data_set in known:
        size = f"{max(1, data_set.size / 1e6):,.0f}" if data_set.size else "-"
        location = "-" if data_set.place is None else str(data_set.place)
        table.add_row(data_set.name, data_set.title, size, data_set.licence, location)
    messages.show(table)


def shard(description: "Description") -> None:
    """Prints the contents of a shard: its modalities, its classes and its provenance."""
    split = "" if description.split is None else f", split {description.split}"
    labelled = "not fixed by the data" if description.labelled is None else str(description.labelled)
    messages.say(f"{description.path}: {description.dataset}{split}")
    messages.say(f"{description.train_rows} training and {description.test_rows} test examples; labelled: {labelled}")
    if description.groups is not None:
        messages.say(f"{description.groups} groups, none of them in both parts")
    lacking = any(m.train_lacking or m.test_lacking for m in description.modalities)
    if lacking:
        messages.say(f"{description.complete_train_rows} training examples have every modality")
    more = ("rows without it",) if lacking else ()
    table = Table("modality", "width", "distribution", "smallest", "mean", "largest", *more)
    for m in description.modalities:
        cells = [m.name, str(m.width), m.distribution, f"{m.min:.4g}", f"{m.mean:.4g}", f"{m.max:.4g}"]
        table.add_row(*cells, *([f"{m.train_lacking} training, {m.test_lacking} test"] if lacking else []))
    messages.show(table)
    table = Table("class", "training", "test", "labelled")
    unknown = description.unknown
    for c in (*description.classes, *([unknown] if unknown.train or unknown.test else [])):
        table.add_row(c.name, str(c.train), str(c.test), "-" if c.labelled is None else str(c.labelled))
    messages.show(table)
    messages.say(f"digest {description.digest}{'' if description.digest_recorded else ' (computed, not recorded)'}")
    messages.as_json(description.provenance)


def findings(found: "Findings") -> None:
    """Prints what a person's data holds."""
    complete = "" if len(found.modalities) == 1 else f", {found.complete} of them with every modality"
    messages.say(f"{found.rows} rows{complete}")
    table = Table("modality", "contents", "rows without it")
    for modality in found.modalities:
        table.add_row(modality.name, modality.contents, str(modality.lacking))
    messages.show(table)
    table = Table("class", "training", "test")
    for row in found.classes:
        table.add_row(row.name, str(row.train), str(row.test))
    if any(found.unlabelled):
        table.add_row(messages.styled("no label", "dim"), *map(str, found.unlabelled))
    messages.show(table)
    messages.say(f"test part: {f'{found.test} rows, by {found.rule}' if found.test else 'none'}")
    if found.groups is not None:
        messages.say(f"{found.groups} groups, none of them in both parts")
    for what, why in list(found.left_out.items())[:LEFT_OUT]:
        messages.say(f"left out: {what}: {why}")
    if len(found.left_out) > LEFT_OUT:
        messages.say(f"left out: {len(found.left_out) - LEFT_OUT} more")
    for note in found.notes:
        messages.say(f"note: {note}")


def runs(listed: Sequence["ListedRun"]) -> None:
    """Prints runs, how far they are, and their accuracies."""
    from trainer.evaluation.subsets import shown_among

    table = Table("run", "epochs", "accuracy (%)")
    hidden = 0
    for run in listed:
        measured = {} if run.result is None else _measured(run.result)
        hidden = max(hidden, len(measured) - len(shown_among(measured)))
        accuracies = messages.styled("unfinished", "yellow") if run.result is None else _accuracies(run.result)
        table.add_row(run.folder.name, f"{run.epochs} of {run.all_epochs}", accuracies)
    messages.show(table)
    _say_hidden(hidden)


def _accuracies(result: Mapping[str, Any]) -> Cell:
    from trainer.evaluation.subsets import every_modality, shown_among, subset_title

    if not result["scores"]:
        return messages.styled("no test part", "dim")
    shown = shown_among(_measured(result))
    every = every_modality(shown)
    return ", ".join(
        f"{subset_title(str(s['given']), every)}{' (iterative)' if s['completion'] == 'iterative' else ''} "
        f"{100 * s['accuracy']:.2f}"
        for s in result["scores"]
        if str(s["given"]) in shown
    )


def _measured(result: Mapping[str, Any]) -> dict[str, None]:
    """The subsets of the modalities in a result as it was written, each once."""
    return {str(score["given"]): None for score in result["scores"]}


def _say_hidden(subsets: int) -> None:
    """Prints how many subsets of the modalities a table does not show, if any, and where they are."""
    if subsets:
        messages.say(f"{subsets} other subsets of the modalities: --json")


def listed_run_as_dict(run: "ListedRun") -> dict[str, Any]:
    """A listed run as JSON values."""
    return {
        "folder": str(run.folder.resolve()),
        "settings": run.settings,
        "epochs": run.epochs,
        "result": run.result,
    }


def evaluation(title: str, result: "Evaluation") -> None:
    """Prints one run's scores, for every subset of modalities or for those of many that are shown."""
    from trainer.evaluation.metrics import COMPLETION_TITLES
    from trainer.evaluation.subsets import every_modality, shown_among, subset_title
    from trainer.reporting.run_tables import NOTHING_MEASURED

    messages.say(title)
    if not result.scores:
        messages.say(NOTHING_MEASURED)
        return
    measured = {score.given: None for score in result.scores}
    shown = shown_among(measured)
    every = every_modality(shown)
    table = Table("given", "how", "accuracy (%)", "nll", "ece")
    for score in (score for score in result.scores if score.given in shown):
        table.add_row(
            subset_title(score.given, every),
            COMPLETION_TITLES[score.completion],
            f"{100 * score.accuracy:.2f}",
            f"{score.nll:.3f}",
            f"{score.ece:.3f}",
        )
    messages.show(table)
    _say_hidden(len(measured) - len(shown))
    messages.say(f"ELBO per test example: {'-' if result.elbo is None else f'{result.elbo:.2f} nats'}")


def results(result_table: "ResultTable", done: Sequence["Run"]) -> None:
    """Prints the scores of trained runs, what ± means, paired differences between settings, and the runs' folders."""
    messages.say(result_table.common)
    if result_table.rows:
        _scores(result_table)
        references(result_table.references, result_table.left_out)
    else:
        _nothing_measured()
    for run in done:
        messages.say_path(run.folder)


def _nothing_measured() -> None:
    """Says what can be done with runs on data without a test part."""
    from trainer.reporting.run_tables import NOTHING_MEASURED

    messages.say(f"{NOTHING_MEASURED}; mmssl predict RUN SOURCE names rows, mmssl export RUN makes a model to keep")


def _scores(result_table: "ResultTable") -> None:
    several = any(row.setting for row in result_table.rows)
    table = Table(*(["setting"] if several else []), "given", "how", "accuracy (%)", "nll", "ece", "replicas")
    previous = ""
    for row in result_table.shown:
        spread = "" if row.accuracy_ci95 is None else f" ± {row.accuracy_ci95:.2f}"
        cells = [
            result_table.title(row.given),
            row.completion,
            f"{row.accuracy:.2f}{spread}",
            f"{row.nll:.3f}",
            f"{row.ece:.3f}",
        ]
        if several and previous and row.setting != previous:
            table.add_section()
        table.add_row(*([row.setting if row.setting != previous else ""] if several else []), *cells, str(row.replicas))
        previous = row.setting
    messages.show(table)
    _say_hidden(result_table.hidden)
    if result_table.plus_minus:
        messages.say(result_table.plus_minus)
    if result_table.differences:
        _differences(result_table)


def _differences(result_table: "ResultTable") -> None:
    """Prints how settings differ from the first one, over the replicas that they share."""
    table = Table("setting", "given", "how", "difference (points)", "pairs")
    previous = ""
    for row in result_table.differences:
        if previous and row.setting != previous:
            table.add_section()
        setting = row.setting if row.setting != previous else ""
        table.add_row(
            setting, result_table.title(row.given), row.how, f"{row.mean:+.2f} ± {row.ci95:.2f}", str(row.pairs)
        )
        previous = row.setting
    messages.say(result_table.differences_title)
    messages.show(table)


def references(rows: Sequence["ScoreRow"], left_out: Sequence[str]) -> None:
    """Prints what everyday classifiers reach on the same labels, and which of them were left out."""
    from trainer.evaluation.subsets import every_modality, subset_title

    if rows:
        every = every_modality(row.given for row in rows)
        table = Table("for reference, on the same labels", "given", "accuracy (%)", "nll", "ece", "replicas")
        previous = ""
        for row in rows:
            if previous and row.setting != previous:
                table.add_section()
            spread = "" if row.accuracy_ci95 is None else f" ± {row.accuracy_ci95:.2f}"
            given = subset_title(row.given, every)
            cells = [given, f"{row.accuracy:.2f}{spread}", f"{row.nll:.3f}", f"{row.ece:.3f}", str(row.replicas)]
            table.add_row(row.setting if row.setting != previous else "", *cells)
            previous = row.setting
        messages.show(table)
    for sentence in left_out:
        messages.say(sentence)


def demo_step(number: int, what: str, real: str) -> None:
    """Prints what the demo does next, and the command that does it with real data."""
    messages.say_styled(f"{number}/4  {what}. For real: ", messages.styled(real, "bold"))


def missing_cameras(result_table: "ResultTable", classes: int) -> None:
    """Prints how accurate the models are with both cameras, and with each alone."""
    cameras = {"x+w": "both", "x": "RGB alone", "w": "depth alone"}
    table = Table("model", "cameras", "for the missing one", "accuracy (%)")
    previous = ""
    rows = (*result_table.rows, *result_table.references)
    settings = list(dict.fromkeys(row.setting for row in rows))
    for row in sorted(rows, key=lambda row: (settings.index(row.setting), -row.given.count("+"))):
        if previous and row.setting != previous:
            table.add_section()
        completion = "-" if row.completion == "all given" else row.completion
        table.add_row(
            row.setting if row.setting != previous else "", cameras[row.given], completion, f"{row.accuracy:.1f}"
        )
        previous = row.setting
    count = result_table.rows[0].replicas
    messages.say(
        f"{result_table.common}; objects that no model has seen, {classes} categories (chance {100 / classes:.0f} %), "
        f"mean over {count} split{'s' if count > 1 else ''}"
    )
    messages.show(table)
    for sentence in result_table.left_out:
        messages.say(sentence)
    messages.say(
        "The features come from random weights and the data are a rendered sample: the numbers show how the models "
        "work, and say nothing about the paper's data."
    )


def planned(work: Sequence["PlannedRun"], todo: Sequence["Stack"], in_json: bool) -> None:
    """Prints the runs that experiments need, and how far each is."""
    from trainer.jobs.stacks import status

    if in_json:
        messages.as_json([{"folder": run.folder.resolve(), "state": status(run)} for run in work])
        return
    table = Table("run", "state")
    for run in work:
        table.add_row(run.folder.name, status(run))
    messages.show(table)
    missing = sum(len(stack.folders) for stack in todo)
    messages.say(f"{len(work)} runs, {len(work) - missing} of them done; {missing} to train, in {len(todo)} stacks")


def experiments(measured: Sequence["ExperimentResult"], paths: Sequence[Path], in_json: bool) -> None:
    """Prints tables next to the paper's, and the files they were written to."""
    from trainer.reporting.comparison_tables import legend, text

    if in_json:
        messages.as_json([result.model_dump(mode="json") for result in measured])
        return
    for result in measured:
        messages.say_styled(messages.styled(f"{result.name}: {result.title}", "bold"))
        for line in legend(result):
            messages.say(line)
        for block in result.blocks:
            systems, notes = text(block, result.comparable)
            columns = ("paper", "ours (runs)", "difference") if result.printed else ("ours (runs)",)
            table = Table("", "", *columns, "", title=block.title)
            for name, cells in systems:
                shown = [(column, cell) for column, cell in zip(block.columns, cells, strict=True) if cell is not None]
                for number, (column, cell) in enumerate(shown):
                    difference = messages.styled(f"{cell.difference} low", "red") if cell.low else cell.difference
                    first = "" if number else name
                    values = (cell.paper, cell.ours, difference) if result.printed else (cell.ours,)
                    table.add_row(first, column, *values, cell.mark)
                if len(block.columns) > 1:
                    table.add_section()
            messages.show(table)
            for number, note in enumerate(notes, 1):
                messages.say(f"†{number}: {note}")
        messages.say()
    for path in paths:
        messages.say_path(path)


def comparison(compared: "RivalComparison", paths: Sequence[Path]) -> None:
    """Prints a table per number of labels, what follows from it in sentences, and the files it was written to."""
    from trainer.evaluation.subsets import every_modality, subset_title
    from trainer.reporting.rival_comparison import replicas_in_words

    every = every_modality(compared.given)
    columns = [subset_title(given, every) for given in compared.given]
    for level in compared.levels:
        interval = ", ± half of the 95 % interval" if len(compared.replicas) > 1 else ""
        messages.say(
            f"{compared.data}, {level.words}: test accuracy (%), mean over {replicas_in_words(compared)}{interval}; "
            "nll and ece given all"
        )
        table = Table("system", *columns, "nll", "ece", "seconds per run")
        previous_ours = True
        for system in level.systems:
            if previous_ours and not system.ours:
                table.add_section()
            previous_ours = system.ours
            cells = [
                f"{of.mean:.1f}{'' if of.half_width is None else f' ± {of.half_width:.1f}'}"
                for of in (system.accuracy[given] for given in compared.given)
            ]
            seconds = f"{system.seconds:.2f}" if system.seconds < 10 else f"{system.seconds:.0f}"
            table.add_row(system.title, *cells, f"{system.nll:.3f}", f"{system.ece:.3f}", seconds)
        messages.show(table)
    for sentence in compared.sentences:
        messages.say(sentence)
    for path in paths:
        messages.say_path(path)
