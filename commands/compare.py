"""`mmssl compare`: our models and the classifiers that people would use instead, on the same labels."""

from pathlib import Path
from typing import Annotated

import typer

from commands import messages, progress, tables
from commands.app import app
from commands.options import (
    DATA,
    MODEL,
    OUTPUT,
    WORKSPACE,
    Assignments,
    Device,
    DeviceOption,
    Json,
    Modalities,
    Root,
    Seeds,
    Splits,
    label_counts,
    names,
)
from commands.settings_from_options import chosen_numbers
from trainer.settings.names import PAPER, RECOMMENDED


@app.command()
def compare(
    data: Annotated[str, typer.Argument(help="Data set, or a shard's FILE.h5, as for --data of `mmssl train`.")],
    labels: Annotated[
        str | None,
        typer.Option(
            help="Numbers of labelled training examples: 20,50,100,200; 'all' and 'shard' as in `mmssl train`.",
            show_default="the shard's own, or the preset's number",
            rich_help_panel=DATA,
        ),
    ] = None,
    split: Splits = None,
    modality: Modalities = None,
    rivals: Annotated[
        str | None,
        typer.Option(
            help="Rivals: logistic-regression, ls-svc, label-spreading, mlp, self-training, co-training, "
            "consistency-mlp.",
            show_default="all of them",
            rich_help_panel=MODEL,
        ),
    ] = None,
    models: Annotated[
        str,
        typer.Option(help="Our models.", rich_help_panel=MODEL),
    ] = "sshmvae-kl",
    presets: Annotated[
        str,
        typer.Option(help="Presets of our models; rivals are measured against the last one.", rich_help_panel=MODEL),
    ] = f"{PAPER},{RECOMMENDED}",
    assignments: Assignments = None,
    seeds: Seeds = None,
    device: DeviceOption = Device.auto,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the comparison.",
            show_default="comparisons/DATA in the workspace",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Compare our models with the classifiers that people would use instead, on the same labels.

    Finished runs and rivals are reused. The same command resumes after an interruption.
    """
    from pipeline.datasets.resolve import shard_paths
    from pipeline.runtime.devices import choose_device
    from pipeline.shards.shard import Shard
    from trainer.jobs.executors import raise_if_failed, train_stacks
    from trainer.jobs.stacks import make_stacks
    from trainer.jobs.train import remove_leftovers
    from trainer.reporting.plot_style import save
    from trainer.reporting.rival_comparison import COMPARISON, write_comparison
    from trainer.reporting.rival_figure import rival_figure
    from trainer.reproduction import comparing
    from trainer.settings.sources import read_assignments
    from trainer.training.run_folder import Run

    chosen = choose_device(device)
    values = read_assignments(assignments or [])
    splits = chosen_numbers(split, values, "split", "--split")
    labelled, seen = values.pop("labels", None), values.pop("modalities", ())
    if labels is None and labelled is not None:
        labels = ",".join(map(str, labelled)) if isinstance(labelled, list) else str(labelled)
    if isinstance(seen, str):
        seen = names(seen)
    request = comparing.Request(
        labels=label_counts(labels) or (None,),
        seeds=tuple(chosen_numbers(seeds, values, "seed", "--seeds") or range(5)),
        models=tuple(dict.fromkeys(names(models))),
        presets=tuple(dict.fromkeys(names(presets))),
        rivals=comparing.choose_rivals(None if rivals is None else names(rivals)),
        modalities=tuple(seen if modality is None else names(modality)),
        values=values,
    )
    shards = [Shard.open(path) for path in shard_paths(data, splits, root)]
    planned = comparing.plan_comparison(request, shards, root)
    wanted = planned.runs()
    for run in wanted:
        Run.prepare(run.folder, run.job.settings)  # refuses a folder that holds something else, before any work
    remove_leftovers([planned.folder / "rivals", *(run.folder for run in wanted)])
    with progress.counting("fits of rivals") as watch_rivals:
        comparing.fit_rivals(planned.fits(), chosen, watch_rivals)
    stacks = make_stacks(wanted, 16 if chosen.type == "cuda" else 1)
    with progress.watching() as watch, progress.finishing(stacks) as finished:
        raise_if_failed(train_stacks(stacks, device, watch, finished=finished), len(stacks))
    comparison = comparing.compare(planned, chosen)
    folder = folder or planned.folder
    paths = [folder / COMPARISON, (folder / COMPARISON).with_suffix(".svg")]
    write_comparison(paths[0], comparison)
    save(rival_figure(comparison), paths[1])
    if as_json:
        messages.as_json(comparison.model_dump(mode="json"))
    else:
        tables.comparison(comparison, paths)
