"""The numbers that the paper prints (`data_manifests/paper.toml`), as typed records."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Self

from pydantic import model_validator

from trainer.reporting.comparison import Printed, Record


class PaperRow(Record):
    """A system's numbers in the order of the table's columns; `quoted` marks those taken from another paper."""

    mean: tuple[float, ...]
    std: tuple[float, ...] | None = None
    quoted: bool = False

    @model_validator(mode="after")
    def _as_many_deviations(self) -> Self:
        if self.std is not None and len(self.std) != len(self.mean):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations")
        return self


class PaperTable(Record):
    """A table as printed: rows by name, in one block per data set."""

    title: str
    columns: tuple[str, ...]
    blocks: dict[str, dict[str, PaperRow]]

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for block in self.blocks.values():
            for name, row in block.items():
                if len(row.mean) > len(self.columns):
                    raise ValueError(f"{name} has more numbers than the table has columns")
        return self

    def printed(self, block: str, row: str, column: str) -> Printed | None:
        """The number in a cell, or None if the table has none there."""
        numbers = self.blocks.get(block, {}).get(row)
        index = self.columns.index(column) if column in self.columns else len(self.columns)
        if numbers is None or index >= len(numbers.mean):
            return None
        std = None if numbers.std is None else numbers.std[index]
        return Printed(mean=numbers.mean[index], std=std, quoted=numbers.quoted)


class Features(Record):
    """How the paper's RGB-D features are made: image size and encoding, fine-tuning, share of labelled images."""

    size: int
    depth_encoding: str
    epochs: int
    labelled: float


class Paper(Record):
    """All numbers that the paper prints, and their source."""

    source: str
    features: Features
    table1: PaperTable
    table2: PaperTable
    table3: PaperTable
    table4: PaperTable
    table5: PaperTable
    table6: PaperTable

    @property
    def tables(self) -> Mapping[str, PaperTable]:
        return {name: value for name in type(self).model_fields if isinstance(value := getattr(self, name), PaperTable)}


@cache
def load() -> Paper:
    """Loads the paper's numbers. Their file comes with the project, so a file that does not validate is a bug."""
    text = (resources.files("data_manifests") / "paper.toml").read_text(encoding="utf-8")
    return Paper.model_validate(tomllib.loads(text))
