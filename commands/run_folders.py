"""The folders of runs that a command is given: opened, with the places where their shards may lie."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import DATA
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.failures import Failures
from pipeline.runtime.paths import expanded

if TYPE_CHECKING:
    from trainer.training.run_folder import Run

RunData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Where the shard is that a run was trained on, if it has moved: FILE.h5, a folder of shards, or a data "
        "set's name.",
        show_default="where it was, or the workspace that holds the run, or that of --root",
        rich_help_panel=DATA,
    ),
]


def places(data: str | None, root: Path) -> tuple[Path, ...]:
    """The shards and folders of shards in which to look for a run's own.

    Raises:
        UsageError: there is no such data set.
        DataError: there is no such file or folder, or the data set cannot be built.
    """
    from pipeline.datasets.resolve import shard_paths
    from pipeline.shards.finding import SHARDS, SUFFIXES

    workspace = root / SHARDS
    if data is None:
        return (workspace,)
    path = expanded(data)
    if "/" in data or path.suffix.lower() in SUFFIXES or path.is_dir():
        if not path.exists():
            raise DataError(f"there is no {path}", "--data takes a shard, a folder of shards, or a data set's name")
        inner = path / SHARDS
        return (path, *([inner] if inner.is_dir() else []), workspace)
    of_splits = sorted(workspace.glob(f"{data}-split-*.h5"))
    return (*(of_splits or shard_paths(data, (), root)), workspace)


def open_runs(folders: Sequence[Path], data: str | None, root: Path, left_out: Failures) -> list["Run"]:
    """The runs in these folders; one that cannot be opened is left out.

    Raises:
        UsageError: --data names a shard that none of them was trained on.
    """
    from trainer.training.run_folder import Run

    looked = places(data, root)
    runs = []
    for folder in folders:
        with left_out.of(str(folder)):
            runs.append(Run.open(folder, looked))
    if runs:
        check_used(looked, runs[0].folder, {run.settings.digest for run in runs})
    return runs


def check_used(looked: Sequence[Path], whose: object, digests: Collection[str]) -> None:
    """Refuses a shard that was named for nothing: who names it may think that the runs are measured on it.

    Args:
        whose: a run or bundle, for the message.
        digests: of the shards that were trained on.

    Raises:
        UsageError: the first of these places is a shard, and none of those.
        DataError: it is damaged.
    """
    from pipeline.shards.finding import digest_of

    first = looked[0]
    if first.is_file() and digest_of(first) not in digests:
        raise UsageError(
            f"{first} is not the shard that {whose} was trained on: its content differs",
            "mmssl predict RUN FILE.h5 answers for other rows",
        )
