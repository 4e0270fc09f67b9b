"""The application and its command groups, to which each file of this package adds its commands."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from commands import messages
from pipeline.runtime.paths import expanded

F = TypeVar("F", bound=Callable[..., Any])


class Commands(typer.Typer):
    """Commands whose paths may begin with `~`, wherever they come from: no shell expands it in `--root=~/ws` or a file
    of variables.
    """

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Adds a command, as typer does."""
        add = super().command(name, **options)

        def decorate(function: F) -> F:
            @functools.wraps(function)
            def with_paths(*given: Any, **named: Any) -> Any:
                return function(*given, **{option: _expanded(value) for option, value in named.items()})

            add(with_paths)
            return function

        return decorate


def _expanded(value: Any) -> Any:
    """An option's value with its paths expanded; a text is taken for a path if it begins with `~/`."""
    if isinstance(value, list):
        return [_expanded(one) for one in value]
    if isinstance(value, Path) and str(value).startswith("~"):
        return expanded(value)
    if type(value) is str and value.startswith("~/"):
        return str(expanded(value))
    return value


app = Commands(
    name="mmssl",
    help="Train classifiers from few labels and many unlabelled multimodal examples, robust to missing modalities.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
preprocess = Commands(help="Prepare a data set for training.", no_args_is_help=True)
shards = Commands(help="Inspect and verify shards; divide off validation parts.", no_args_is_help=True)
data_sets = Commands(help="List, fetch and verify data sets; render a small sample.", no_args_is_help=True)
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
