"""`mmssl data ...` and `mmssl shards ...`: list, fetch and verify data sets; inspect and verify shards."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from commands import messages, progress, tables
from commands.app import data_sets, shards
from commands.options import DATA, WORKSPACE, Json, Root

_log = logging.getLogger("mmssl")
Name = Annotated[str, typer.Argument(help="Name of the data set; `mmssl data list` shows them.")]


@data_sets.command("list")
def list_data(root: Root = WORKSPACE) -> None:
    """List the data sets, and your own data in the workspace, and where they are."""
    from pipeline.datasets.catalogue import list_data_sets
    from pipeline.images.listing import list_own_data

    tables.data_sets([*list_data_sets(root), *list_own_data(root)])


@data_sets.command()
def fetch(name: Name, root: Root = WORKSPACE) -> None:
    """Download a data set, verify it and unpack it; existing files are used."""
    from pipeline.datasets import catalogue

    deviations = catalogue.fetch(name, root)
    for deviation in deviations:
        _log.warning("%s", deviation)
    count = len(deviations)
    messages.say(f"{name}: ready{f' ({count} deviations from the manifest)' if count else ''}")


@data_sets.command("verify")
def verify_data(name: Name, root: Root = WORKSPACE) -> None:
    """Check a data set against its manifest: checksums, or the contents that an archive must have."""
    from pipeline.datasets import catalogue

    deviations = catalogue.verify(name, root)
    for deviation in deviations:
        messages.say(deviation)
    if deviations:
        raise typer.Exit(1)
    messages.say(f"{name}: verified, every file is good")


@data_sets.command("sample")
def render_sample(
    categories: Annotated[int, typer.Option(help="Number of categories.", rich_help_panel=DATA)] = 10,
    objects: Annotated[int, typer.Option(help="Number of objects per category.", rich_help_panel=DATA)] = 4,
    views: Annotated[
        int, typer.Option(help="Number of views of an object in each of its three videos.", rich_help_panel=DATA)
    ] = 8,
    seed: Annotated[int, typer.Option(help="Seed of every object, view and pixel.", rich_help_panel=DATA)] = 0,
    root: Root = WORKSPACE,
) -> None:
    """Render a small RGB-D data set in the Washington layout, without a download."""
    from pipeline.datasets.locations import SAMPLE
    from pipeline.sample.render import render

    with progress.counting("objects") as watch:
        folder = render(
            root / "raw" / SAMPLE,
            categories=categories,
            objects_per_category=objects,
            views=views,
            seed=seed,
            progress=watch,
        )
    messages.say_path(folder)


@shards.command()
def inspect(file: Annotated[Path, typer.Argument(help="Shard to inspect.")], as_json: Json = False) -> None:
    """Show what a shard contains."""
    from dataclasses import asdict

    from pipeline.shards.shard import Shard
    from pipeline.shards.summary import describe

    description = describe(Shard.open(file))
    if as_json:
        messages.as_json(asdict(description))
    else:
        tables.shard(description)


@shards.command()
def validation(
    files: Annotated[list[Path], typer.Argument(help="Shards whose training part to divide.")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to.", show_default="each shard's own")
    ] = None,
) -> None:
    """Divide the training part of shards into training and validation, to choose settings without the test part.

    Writes FILE-validation.h5 for FILE.h5; an existing one is verified.
    """
    from pipeline.datasets.validation import build_validation, validation_path

    for file in files:
        target = validation_path(file)
        messages.say_path(build_validation(file, folder / target.name if folder else target))


@shards.command()
def verify(files: Annotated[list[Path], typer.Argument(help="Shards to verify.")]) -> None:
    """Read shards completely and check every byte."""
    from pipeline.shards.shard import Shard

    for file in files:
        Shard.open(file).verify()
        messages.say(f"{file}: verified")
