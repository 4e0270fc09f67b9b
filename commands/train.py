"""`mmssl train` and `mmssl evaluate`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from commands import messages, progress, tables
from commands.app import app
from commands.label_files import LabelsFrom, NewClasses, read_label_files
from commands.options import (
    COMPUTE,
    DATA,
    MODEL,
    OBJECTIVE,
    OUTPUT,
    SCHEDULE,
    WORKSPACE,
    Assignments,
    Device,
    DeviceOption,
    Jobs,
    Json,
    LabelEstimator,
    Modalities,
    ModelName,
    PresetOption,
    ReferenceOption,
    Root,
    Scheduler,
    Seeds,
    Splits,
    StackSize,
    names,
)
from commands.run_folders import RunData, open_runs
from commands.settings_from_options import chosen_numbers, chosen_weights
from pipeline.datasets.registry import data_set_names
from pipeline.runtime.errors import UsageError

_log = logging.getLogger("mmssl")


@app.command()
def train(
    model: Annotated[ModelName, typer.Argument(help="Name of the model.")],
    data: Annotated[
        str | None,
        typer.Option(
            help=f"Data set ({', '.join(data_set_names())}, rgbd, rgbd-sample), NAME-validation to score "
            "on a part of its training data, or a shard's FILE.h5, with {split} in its name if there are splits.",
            show_default="hm-digits, which is bundled",
            rich_help_panel=DATA,
        ),
    ] = None,
    split: Splits = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Number of labelled training examples, equal per class; 'all'; or 'shard': those that the shard "
            "marks.",
            show_default="the preset's",
            rich_help_panel=DATA,
        ),
    ] = None,
    labels_from: LabelsFrom = None,
    new_classes: NewClasses = False,
    modality: Modalities = None,
    preset: PresetOption = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; options override it.", rich_help_panel=MODEL)
    ] = None,
    assignments: Assignments = None,
    alpha: Annotated[
        str | None,
        typer.Option(help="Weight of the classifier (eq. 6), one or several: 0.1,1,10.", rich_help_panel=OBJECTIVE),
    ] = None,
    beta: Annotated[
        str | None,
        typer.Option(help="Weight of the divergence (eq. 13), one or several: 0.1,1,10.", rich_help_panel=OBJECTIVE),
    ] = None,
    label_estimator: Annotated[
        LabelEstimator | None,
        typer.Option(
            help="Treatment of unobserved labels: a Gumbel-softmax sample, or the exact sum over classes.",
            show_default="gumbel, the paper's",
            rich_help_panel=OBJECTIVE,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the unlabelled examples; rounds, for the co-trained systems.",
            show_default="the preset's",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Unlabelled examples per step.", show_default="the preset's", rich_help_panel=SCHEDULE),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Adam's learning rate.", show_default="the preset's", rich_help_panel=SCHEDULE),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            help="Iterations of iterative sampling at evaluation.", show_default="100", rich_help_panel=SCHEDULE
        ),
    ] = None,
    seeds: Seeds = None,
    device: DeviceOption = Device.auto,
    stack: StackSize = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="Memory for features, such as 2GB; larger data is streamed from disk.", rich_help_panel=COMPUTE
        ),
    ] = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the run, or of several runs.",
            show_default="runs/ in the workspace",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the resolved settings without training.", rich_help_panel=OUTPUT),
    ] = False,
    reference: ReferenceOption = True,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Train a model, and show its accuracy with each modality missing.

    The same command resumes after an interruption, and does nothing once everything is done.
    """
    from pipeline.datasets.resolve import BUNDLED, open_shards
    from pipeline.runtime.devices import choose_device
    from pipeline.runtime.failures import Failures, raise_if_failed
    from trainer.baselines.references import add_references
    from trainer.jobs.executors import choose_executor, train_stacks
    from trainer.jobs.plan import folders_of, plan
    from trainer.jobs.stacks import MOST, PlannedRun, make_stacks, usable
    from trainer.jobs.train import remove_leftovers
    from trainer.reporting.run_tables import run_as_dict, table
    from trainer.settings.sources import merged, read_assignments, read_toml

    executor = choose_executor(jobs, scheduler)
    chosen = choose_device(device if scheduler is None else "auto")  # a cluster's workers use their own devices
    values = merged(read_toml(config) if config is not None else {}, read_assignments(assignments or []))
    options = {
        "labels": int(labels) if labels is not None and labels.isascii() and labels.isdigit() else labels,
        "modalities": tuple(names(modality)) if modality is not None else None,
        "label_estimator": label_estimator,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": lr,
        "iterations": iterations,
        "memory_limit": memory_limit,
    }
    values |= {key: value for key, value in options.items() if value is not None}
    named = values.pop("data", None)
    if not isinstance(named, str | None):
        raise UsageError(f"the settings: data: it is a name or a file, not {named!r}")
    data = named if data is None else data
    if data is None:
        data = BUNDLED
        _log.info("training on the bundled %s; choose other data with --data hm-mnist, nm-mnist or FILE.h5", data)
    left_out = Failures()
    opened = open_shards(data, chosen_numbers(split, values, "split", "--split"), root, left_out)
    if labels_from:
        values["answers"] = read_label_files(labels_from, opened, new_classes)
    planned = plan(
        model,
        opened,
        preset=preset,
        values=values,
        seeds=chosen_numbers(seeds, values, "seed", "--seeds"),
        alphas=chosen_weights(alpha, values, "alpha", "--alpha"),
        betas=chosen_weights(beta, values, "beta", "--beta"),
        stack=stack or MOST,
    )
    if preset is None and planned[0].settings.beyond():
        _log.info("settings: recommended, sized to the data; the paper's: --preset paper")
    folders = folders_of(planned, folder, root / "runs")
    if dry_run:
        messages.as_json(
            [
                {"folder": str(path.resolve()), "settings": job.settings.model_dump()}
                for job, path in zip(planned, folders, strict=True)
            ]
        )
        return
    wanted = [PlannedRun(job, path) for job, path in zip(planned, folders, strict=True)]
    left_out.alone = len(wanted) == 1
    wanted, pieces = usable(wanted, left_out), len(wanted)
    if not wanted:
        left_out.raise_if_any(pieces)
    remove_leftovers(folders)
    stacks = make_stacks(wanted, stack, gpu=scheduler is not None or chosen.type == "cuda", jobs=jobs)
    with progress.watching() as watch, progress.finishing(stacks) as finished:
        failures = train_stacks(stacks, device, watch, executor, finished)
    runs = [run.run for run in wanted if run.done]
    shards = {run.folder: run.job.shard for run in wanted}
    references = add_references(runs, lambda run: shards[run.folder]) if reference else {}
    if as_json:
        messages.as_json([run_as_dict(run, references) for run in runs])
    elif runs:
        tables.results(table(runs, references=references), runs)
    raise_if_failed([*left_out.errors.values(), *failures], len(left_out) + max(1, len(stacks)))


@app.command()
def evaluate(
    run: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    iterations: Annotated[
        int | None,
        typer.Option(
            min=1, help="Iterations of iterative sampling.", show_default="the run's own", rich_help_panel=SCHEDULE
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Samples of latent variables; 0 takes their mean.",
            show_default="the run's own",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    data: RunData = None,
    device: DeviceOption = Device.auto,
    reference: ReferenceOption = True,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Re-evaluate finished runs on their test sets, optionally with other sampling settings.

    A run that cannot be evaluated is named and left out, and the exit code is then 1.
    """
    from dataclasses import asdict

    from pipeline.runtime.devices import choose_device
    from pipeline.runtime.failures import Failures
    from trainer.baselines.references import Reference, add_references, as_dict
    from trainer.inference.loading import shard_of
    from trainer.jobs.train import evaluate_run
    from trainer.reporting.run_tables import reference_rows

    chosen, left_out = choose_device(device), Failures(alone=len(run) == 1)
    evaluated = []
    references: dict[Path, tuple[Reference, ...]] = {}
    for opened in open_runs(run, data, root, left_out):
        with left_out.of(str(opened.folder)):
            result = evaluate_run(opened, chosen, iterations=iterations, samples=samples)
            if reference:
                references |= add_references([opened], shard_of)
            evaluated.append((opened, result))
    if not evaluated:
        left_out.raise_if_any(len(run))
    if as_json:
        messages.as_json(
            [
                {"folder": str(opened.folder.resolve()), **asdict(result)}
                | ({"reference": as_dict(references[opened.folder])} if reference else {})
                for opened, result in evaluated
            ]
        )
    for opened, result in [] if as_json else evaluated:
        tables.evaluation(opened.folder.name, result)
        if result.scores:
            tables.references(*reference_rows([opened], references))
    left_out.raise_if_any(len(run))
