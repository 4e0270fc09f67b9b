"""The application and its command groups, to which each file of this package adds its commands."""

from typing import Annotated

import typer

from commands import messages

app = typer.Typer(
    name="mmssl",
    help="Train classifiers from few labels and many unlabelled multimodal examples, robust to missing modalities.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
preprocess = typer.Typer(help="Prepare a data set for training.", no_args_is_help=True)
shards = typer.Typer(help="Inspect and verify shards; divide off validation parts.", no_args_is_help=True)
data_sets = typer.Typer(help="List, fetch and verify data sets; render a small sample.", no_args_is_help=True)
app.add_typer(preprocess, name="preprocess")
app.add_typer(shards, name="shards")
app.add_typer(data_sets, name="data")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Semi-supervised multimodal learning with deep generative models (Suzuki & Matsuo 2018)."""
    if version:
        from pipeline.runtime.versions import versions

        messages.say(f"mmssl {versions()['mmssl']}")
        raise typer.Exit
    messages.show_log()
