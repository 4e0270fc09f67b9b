"""`mmssl data import`: a person's own pictures or vectors become an image store or a shard."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands import messages, progress, tables
from commands.app import data_sets
from commands.options import (
    COMPUTE,
    DATA,
    OUTPUT,
    SCHEDULE,
    WORKSPACE,
    Encoding,
    Root,
    Scheduler,
    Size,
)
from pipeline.runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from pipeline.images.store import ImageSettings
    from pipeline.sources.rows import Source

_log = logging.getLogger("mmssl")


@data_sets.command("import")
def import_data(
    source: Annotated[Path, typer.Argument(help="Folder of pictures, metadata.csv, or vectors as .npz, .npy or .csv.")],
    name: Annotated[
        str, typer.Option(help="Name of the data set, for --data in other commands.", rich_help_panel=DATA)
    ],
    test: Annotated[
        float | None,
        typer.Option(help="Share of the labelled rows to keep for testing.", show_default="none", rich_help_panel=DATA),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Column whose equal values no split cuts apart; 'folder': the folder of the pictures.",
            show_default="the column group, if there is one",
            rich_help_panel=DATA,
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class, which need not have a label yet; may be repeated, and then all must be named.",
            show_default="those of the labels",
            rich_help_panel=DATA,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the test part.", rich_help_panel=SCHEDULE)] = 0,
    distribution: Annotated[
        list[str] | None,
        typer.Option(
            help="Distribution of vectors as MODALITY=NAME: bernoulli, nonnegative or gaussian; may be repeated.",
            show_default="by the values",
            rich_help_panel=DATA,
        ),
    ] = None,
    depth_encoding: Encoding = None,
    size: Size = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Treat a row that must be left out as an error.", rich_help_panel=DATA)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is in the source, and write nothing.", rich_help_panel=OUTPUT)
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(help="PNG file to show some rows in, raw and processed.", rich_help_panel=OUTPUT)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of worker processes.", show_default="one per core", rich_help_panel=COMPUTE),
    ] = None,
    scheduler: Scheduler = None,
    root: Root = WORKSPACE,
) -> None:
    """Import your own pictures or vectors: say what is in them, then make an image store or a shard.

    Any row may lack a label, and any of its modalities; where no row has a label yet, name the classes. Pictures become
    images/NAME, from which `mmssl extract --data NAME` makes a shard; vectors become the shard shards/NAME.h5 at once.
    """
    from commands.settings_from_options import settings_of
    from pipeline.datasets.names import check_name
    from pipeline.images.store import ImageSettings
    from pipeline.sources.parts import divide
    from pipeline.sources.reading import read_source
    from pipeline.sources.rows import check_modalities
    from pipeline.sources.survey import survey

    check_name(name)
    settings = settings_of(ImageSettings, size=size, depth_encoding=depth_encoding)
    families = _assignments(distribution or [])
    rows = read_source(source, group)
    check_modalities(rows)
    _check_options(rows, settings, families, preview)
    if strict and rows.left_out:
        what, why = next(iter(rows.left_out.items()))
        raise DataError(f"{source}: {what}: {why}", "without --strict such rows are listed and left out")
    labelling = divide(rows, test, seed, classes or ())
    tables.findings(survey(rows, labelling))
    if test is not None and rows.pictures and rows.groups is None:
        _log.warning("pictures of one recording may be in both parts: --group folder, or a column, keeps them together")
    if preview is not None:
        from pipeline.images.imported import preview as draw

        draw(rows, preview, settings.depth_encoding)
        _log.info("wrote %s", preview)
    if rows.pictures:
        from pipeline.images.imported import import_pictures

        if dry_run:
            return
        with progress.counting("files") as watch:
            store = import_pictures(
                rows, labelling, name, root, settings,
                workers=workers, scheduler=scheduler, strict=strict, progress=watch,
            )  # fmt: skip
        messages.say(f"{store.folder.resolve()}: {len(store.ids)} rows")
    else:
        from pipeline.sources.vector_shard import distributions_of, import_vectors

        chosen = distributions_of(rows, families)
        messages.say("distributions: " + ", ".join(f"{key} {value}" for key, value in chosen.items()))
        if dry_run:
            return
        asked = {"test": test, "seed": seed, "group": group}
        path = import_vectors(rows, labelling, name, root, distributions=chosen, settings=asked)
        messages.say_path(path)


def _check_options(rows: "Source", settings: "ImageSettings", families: dict[str, str], preview: Path | None) -> None:
    """Checks that the options suit the source.

    Raises:
        UsageError: one of them is for the other kind of source, or cannot be had.
    """
    if rows.pictures:
        from pipeline.images.imported import check_encoding

        if families:
            raise UsageError("--distribution is for vectors, but the source holds pictures", "leave it out")
        check_encoding(settings.depth_encoding)
    else:
        from pipeline.sources.vector_shard import distributions_of

        if preview is not None:
            raise UsageError("--preview shows pictures, but the source holds vectors", "leave it out")
        distributions_of(rows, families)


def _assignments(texts: list[str]) -> dict[str, str]:
    """Parses `x=gaussian`.

    Raises:
        UsageError: a text is not of this form, or names a modality twice.
    """
    given: dict[str, str] = {}
    for text in texts:
        name, _, family = (part.strip() for part in text.rpartition("="))
        if not name or name in given:
            problem = "is given twice" if name in given else "is not MODALITY=NAME"
            raise UsageError(f"--distribution {text}: {problem}", "example: --distribution x=gaussian")
        given[name] = family
    return given
