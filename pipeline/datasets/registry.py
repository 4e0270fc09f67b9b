"""Data sets that `--data NAME` builds by itself. A new one is a file that ends in its cards, and a line here per card.

A file is imported when its card is first needed, so that names alone (for help and completion) cost nothing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

_FILES = {  # in the order of lists
    "hm-mnist": "pipeline.datasets.digits",
    "nm-mnist": "pipeline.datasets.digits",
    "hm-digits": "pipeline.datasets.digits",
    "nm-digits": "pipeline.datasets.digits",
    "mfeat": "pipeline.datasets.mfeat",
}


@dataclass(frozen=True)
class DataSetCard:
    """One data set.

    Attributes:
        name: on the command line.
        title: one line for lists.
        build: builds the shard if it does not exist, and returns its path; takes the workspace and the options that
            `variants` found in the name.
        variants: matches names that contain options, such as `nm-mnist-r60-n0.3`; its groups are the options.
    """

    name: str
    title: str
    build: Callable[[Path, Mapping[str, str]], Path]
    variants: re.Pattern[str] | None = None

    def options(self, data: str) -> dict[str, str] | None:
        """The options contained in a name of this data set; None for the name of another data set."""
        if data == self.name:
            return {}
        match = self.variants.fullmatch(data) if self.variants else None
        return None if match is None else {key: value for key, value in match.groupdict().items() if value is not None}


def data_set_names() -> tuple[str, ...]:
    """The names of all data sets that can be built."""
    return tuple(_FILES)


def cards() -> list[DataSetCard]:
    """The cards of all data sets, in the order of lists."""
    return [next(c for c in import_module(module).CARDS if c.name == name) for name, module in _FILES.items()]
