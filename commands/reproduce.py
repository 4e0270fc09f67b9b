"""`mmssl reproduce`: the paper's tables and figures."""

from contextlib import nullcontext
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from commands import progress, tables
from commands.app import app
from commands.options import (
    DATA,
    OUTPUT,
    SCHEDULE,
    WORKSPACE,
    Assignments,
    Device,
    DeviceOption,
    Jobs,
    Json,
    PresetOption,
    Root,
    Scheduler,
    StackSize,
    names,
    numbers,
)


class Source(StrEnum):
    """Where an experiment's data comes from."""

    mnist = "mnist"
    rgbd = "rgbd"


@app.command()
def reproduce(
    what: Annotated[list[str], typer.Argument(help="table1 .. table6, figure4, figure5, figure6, or all.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data to use instead of the paper's: digits (for MNIST), rgbd-sample or another name (for RGB-D).",
            rich_help_panel=DATA,
        ),
    ] = None,
    data_only: Annotated[
        Source | None,
        typer.Option("--data-only", help="Restrict to the experiments on MNIST or on RGB-D.", rich_help_panel=DATA),
    ] = None,
    split: Annotated[str, typer.Option(help="Splits of RGB-D: 0..9 or 0,3,7.", rich_help_panel=DATA)] = "0..9",
    preset: PresetOption = None,
    assignments: Assignments = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs of every run.",
            show_default="the paper's: 500 on MNIST, 100 on RGB-D",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(help="Seeds of the runs on MNIST, 0..4 or 0,3; RGB-D takes the first.", rich_help_panel=SCHEDULE),
    ] = "0..4",
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            min=0.01,
            help="Minutes after which training stops; the same command resumes it.",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    stack: StackSize = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the tables.", show_default="results/ in the workspace", rich_help_panel=OUTPUT
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the runs that are needed without training.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Train every model a table or figure needs, and print our numbers next to the paper's.

    Finished runs are reused. The same command resumes after an interruption.
    """
    from pipeline.datasets.resolve import open_shards
    from pipeline.runtime.devices import choose_device
    from pipeline.runtime.failures import Failures, raise_if_failed
    from pipeline.runtime.leases import lease
    from pipeline.shards.shard import Shard
    from trainer.jobs.executors import choose_executor, train_stacks
    from trainer.jobs.executors import time_limit as limit
    from trainer.jobs.stacks import make_stacks, usable
    from trainer.jobs.train import remove_leftovers
    from trainer.reproduction import measure
    from trainer.reproduction.protocol import Protocol, choose_data, plan, select
    from trainer.settings.names import PAPER
    from trainer.settings.sources import read_assignments

    executor = choose_executor(jobs, scheduler)
    chosen = choose_device(device if scheduler is None else "auto")  # a cluster's workers use their own devices
    wanted = select(what, data_only)
    protocol = Protocol(
        seeds=tuple(numbers(seeds, int, "--seeds")),
        splits=tuple(numbers(split, int, "--split")),
        epochs=epochs,
        preset=preset or PAPER,
        values=read_assignments(assignments or []),
        data=choose_data([] if data is None else names(data), wanted),
    )

    left_out = Failures()

    @cache
    def shards_of(source: str, name: str) -> list[Shard]:
        return open_shards(name, protocol.splits if source == Source.rgbd else (), root, left_out)

    planned = plan(wanted, shards_of, protocol, root / "runs")
    runs = planned.all() if dry_run else usable(planned.all(), left_out)
    if not runs:
        left_out.raise_if_any(len(left_out))
    stacks = make_stacks(runs, stack, gpu=scheduler is not None or chosen.type == "cuda", jobs=jobs)
    if dry_run:
        tables.planned(planned.all(), stacks, as_json)
        return
    folder = folder or root / "results" / protocol.name()
    measure.check_folder(planned, folder)
    with lease(*measure.outputs(wanted, folder)) if stacks else nullcontext():
        remove_leftovers([folder, *(run.folder for run in planned.all())])
        try:
            with progress.watching() as watch, progress.finishing(stacks) as finished, limit(time_limit):
                failures = train_stacks(stacks, device, watch, executor, finished)
        finally:  # writes the finished part even if training was stopped
            results, paths = measure.write_all(planned, wanted, folder, chosen)
            tables.experiments(results, paths, as_json)
    raise_if_failed([*left_out.errors.values(), *failures], len(left_out) + max(1, len(stacks)))
