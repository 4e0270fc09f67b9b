"""Names that a person may give to data of their own."""

import re
from pathlib import Path

from pipeline.datasets.locations import ARCHIVE, DATASETS
from pipeline.datasets.registry import cards
from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import VALIDATION

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MOST = 100  # characters
_MEANT_AS = {  # what a name must not end in, for `--data NAME` would mean something else
    re.compile(r".*-split-\d+"): "a number of a split",
    re.compile(rf".*{VALIDATION}"): "-validation, which is for validation parts",
    re.compile(r".*\.(h5|hdf5)"): "a file's suffix",
}


def check_name(name: str) -> str:
    """The name itself, if a person may give it to their data.

    Raises:
        UsageError: it cannot be a file's name, or `--data NAME` already means something else.
    """
    if not _NAME.fullmatch(name) or len(name) > _MOST:
        raise UsageError(f"--name {name}: a name has letters, digits, '.', '_' and '-' alone, {_MOST} of them at most")
    for pattern, words in _MEANT_AS.items():
        if pattern.fullmatch(name):
            raise UsageError(f"--name {name}: a name cannot end in {words}")
    if name in (*DATASETS, ARCHIVE) or is_built_in(name):
        raise UsageError(f"--name {name}: is the name of a data set that mmssl knows", "choose a name of your own")
    return name


def is_built_in(name: str) -> bool:
    """Whether `--data NAME` builds a data set by itself."""
    return any(card.options(name) is not None for card in cards())


def imported_shard(name: str, root: Path) -> Path:
    """The shard of imported vectors, or of imported pictures once their features are there."""
    return root / "shards" / f"{name}.h5"
