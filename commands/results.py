"""`mmssl runs`, `mmssl generate` and `mmssl report`: show the results of runs."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from commands import messages, tables
from commands.app import app
from commands.options import DATA, OUTPUT, SCHEDULE, WORKSPACE, Device, DeviceOption, Json, Root, names
from commands.run_folders import RunData, open_runs, places

_log = logging.getLogger("mmssl")


@app.command()
def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders to search for runs.", show_default="the workspace's runs"),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(help="File for a plot of accuracy against epochs (.png, .svg, .pdf).", rich_help_panel=OUTPUT),
    ] = None,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """List finished and unfinished runs."""
    from trainer.training.run_listing import list_runs

    listed = list_runs(folders or [root / "runs"])
    if curves is not None:
        from trainer.reporting import plots
        from trainer.training.run_folder import find

        plots.curves(find([run.folder for run in listed]), curves)
        _log.info("wrote %s", curves)
    if as_json:
        messages.as_json([tables.listed_run_as_dict(run) for run in listed])
    elif not listed:
        messages.say("no runs yet; train one: mmssl train sshmvae-kl")
    else:
        tables.runs(listed)


@app.command()
def generate(
    run: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    given: Annotated[
        str, typer.Option("--from", help="Modality to generate from, or several: x,v.", rich_help_panel=DATA)
    ],
    target: Annotated[str, typer.Option("--to", help="Modality to generate.", rich_help_panel=DATA)],
    examples: Annotated[
        int, typer.Option(min=1, help="Number of test examples, one of each class in turn.", rich_help_panel=DATA)
    ] = 10,
    iterations: Annotated[
        int | None,
        typer.Option(
            min=1, help="Iterations of iterative sampling.", show_default="the run's own", rich_help_panel=SCHEDULE
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write: a picture (.png, .svg, .pdf), or numbers (.npz).",
            show_default="TARGET-from-GIVEN.png",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    data: RunData = None,
    root: Root = WORKSPACE,
) -> None:
    """Generate one modality from another with every method a model supports, below the ground truth."""
    from pipeline.runtime.devices import choose_device
    from pipeline.runtime.failures import Failures
    from trainer.inference.loading import shard_path
    from trainer.reporting.generated_images import write_generated

    chosen, left_out = choose_device(device), Failures(alone=len(run) == 1)
    modalities = names(given)
    path = file or Path(f"{target}-from-{'-'.join(modalities)}.png")
    usable = []
    for opened in open_runs(run, data, root, left_out):
        with left_out.of(str(opened.folder)):
            shard_path(opened)
            usable.append(opened)
    if not usable:
        left_out.raise_if_any(len(run))
    write_generated(usable, path, chosen, given=modalities, target=target, examples=examples, iterations=iterations)
    messages.say_path(path)
    left_out.raise_if_any(len(run))


@app.command()
def report(
    what: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, results, or folders of them.", show_default="the workspace's runs"),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="File for a self-contained HTML report.", show_default="report.html", rich_help_panel=OUTPUT),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="File for the tables as Markdown.", rich_help_panel=OUTPUT)
    ] = None,
    as_json: Annotated[
        Path | None,
        typer.Option("--json", help="File for numbers, settings and provenance as JSON.", rich_help_panel=OUTPUT),
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            help="Include pictures that need the models and their data: generated images, latent spaces, confusions.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    data: RunData = None,
    device: DeviceOption = Device.auto,
    root: Root = WORKSPACE,
) -> None:
    """Write a self-contained report: results next to the paper's, and runs with their curves.

    What cannot be read is named and left out; the exit code is 1 if it was asked for by its name.
    """
    from pipeline.runtime.devices import choose_device
    from trainer.reporting import page, render

    chosen = choose_device(device)
    if html is None and markdown is None and as_json is None:
        html = Path("report.html")
    forms = ((html, render.html), (markdown, render.markdown), (as_json, render.as_json))
    contents = page.read(what or [root / "runs"], places(data, root))
    composed = page.compose(contents.results, contents.runs, chosen, models, contents.comparisons)
    for path, form in forms:
        if path is not None:
            render.write(composed, path, form)
            messages.say_path(path)
    if contents.left_out:
        raise typer.Exit(1)
