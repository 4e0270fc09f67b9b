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
    from pipeline.datasets.resolve import open_shards
    from pipeline.runtime.devices import choose_device
    from pipeline.runtime.errors import UsageError
    from pipeline.runtime.failures import Failures, raise_if_failed
    from trainer.jobs.executors import train_stacks
    from trainer.jobs.stacks import make_stacks, usable
    from trainer.jobs.train import remove_leftovers
    from trainer.reporting.plot_style import save
    from trainer.reporting.rival_comparison import COMPARISON, write_comparison
    from trainer.reporting.rival_figure import rival_figure
    from trainer.reproduction import comparing
    from trainer.settings.sources import read_assignments

    chosen = choose_device(device)
    values = read_assignments(assignments or [])
    splits = chosen_numbers(split, values, "split", "--split")
    labelled, seen = values.pop("labels", None), values.pop("modalities", ())
    if labels is None and labelled is not None:
        labels = ",".join(map(str, labelled)) if isinstance(labelled, list) else str(labelled)
    if isinstance(seen, str):
        seen = names(seen)
    if not isinstance(seen, list | tuple) or not all(isinstance(name, str) for name in seen):
        raise UsageError(f"--set modalities={seen}: is not a list of modalities", "--modality x, or --modality x,w")
    request = comparing.Request(
        labels=label_counts(labels) or (None,),
        seeds=tuple(chosen_numbers(seeds, values, "seed", "--seeds") or range(5)),
        models=tuple(dict.fromkeys(names(models))),
        presets=tuple(dict.fromkeys(names(presets))),
        rivals=comparing.choose_rivals(None if rivals is None else names(rivals)),
        modalities=tuple(seen if modality is None else names(modality)),
        values=values,
    )
    left_out = Failures()
    shards = []
    for shard in open_shards(data, splits, root, left_out):
        of_shard = comparing.plan_comparison(request, [shard], root).runs()
        if len(usable(of_shard, left_out)) == len(of_shard):  # otherwise its systems would not see the same labels
            shards.append(shard)
    if not shards:
        left_out.raise_if_any(len(left_out))
    planned = comparing.plan_comparison(request, shards, root)
    wanted = planned.runs()
    remove_leftovers([planned.folder / "rivals", *(run.folder for run in wanted)])
    with progress.counting("fits of rivals") as watch_rivals:
        failed = comparing.fit_rivals(planned.fits(), chosen, watch_rivals)
    stacks = make_stacks(wanted, gpu=chosen.type == "cuda")
    with progress.watching() as watch, progress.finishing(stacks) as finished:
        failures = train_stacks(stacks, device, watch, finished=finished)
    if failures:
        shards = [
            shard
            for shard in shards
            if all(run.done for run in comparing.plan_comparison(request, [shard], root).runs())
        ]
        if not shards:
            raise_if_failed(failures, len(stacks))
        planned = comparing.plan_comparison(request, shards, root)
    comparison = comparing.compare(planned, chosen, failed)
    folder = folder or planned.folder
    paths = [folder / COMPARISON, (folder / COMPARISON).with_suffix(".svg")]
    write_comparison(paths[0], comparison)
    save(rival_figure(comparison), paths[1])
    if as_json:
        messages.as_json(comparison.model_dump(mode="json"))
    else:
        tables.comparison(comparison, paths)
    raise_if_failed([*left_out.errors.values(), *failures], len(left_out) + max(1, len(stacks)))
