"""Rows that lack modalities: features that know which of their rows are there."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Incomplete(dict[str, Tensor]):
    """Features by modality, `[R, B, D]`, of rows of which some lack modalities; what a row lacks is zeros.

    Wherever features are expected, a plain mapping means that every row has every modality.

    Attributes:
        present: which rows have a modality, bool `[R, B]`; a modality that is not in it is in every row.
    """

    def __init__(self, values: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
        super().__init__(values)
        self.present = {m: rows for m, rows in present.items() if m in values}


def present_rows(x: Mapping[str, Tensor], modality: str) -> Tensor | None:
    """Which rows have a modality, bool `[R, B]`; None if all of them have it."""
    return x.present.get(modality) if isinstance(x, Incomplete) else None


def all_present(x: Mapping[str, Tensor]) -> Tensor | None:
    """Which rows have all of x's modalities, bool `[R, B]`; None if all of them do."""
    if not isinstance(x, Incomplete) or not x.present:
        return None
    return torch.stack(list(x.present.values())).all(0)


def any_present(x: Mapping[str, Tensor]) -> Tensor | None:
    """Which rows have any of x's modalities, bool `[R, B]`; None if all of them do."""
    if not isinstance(x, Incomplete) or len(x.present) < len(x):
        return None
    return torch.stack(list(x.present.values())).any(0)


def beside_others(x: Mapping[str, Tensor], modality: str) -> Tensor | None:
    """Which rows have a modality and at least one more, bool `[R, B]`; None if all of them do.

    All rows do if there is one modality only: then no row lacks any.
    """
    if not isinstance(x, Incomplete) or not x.present or len(x) == 1:
        return present_rows(x, modality)
    always = len(x) - len(x.present)
    several = torch.stack(list(x.present.values())).sum(0) + always > 1
    rows = x.present.get(modality)
    return several if rows is None else rows & several


def same_rows(x: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Other values, or some of the modalities, of the same rows: they lack what x's rows lack."""
    return Incomplete(values, x.present) if isinstance(x, Incomplete) and x.present else values


def given(x: Mapping[str, Tensor], modalities: Sequence[str]) -> Mapping[str, Tensor]:
    """Some of the modalities of the same rows."""
    return same_rows(x, {m: x[m] for m in modalities})


def some_rows(x: Mapping[str, Tensor], rows: slice) -> Mapping[str, Tensor]:
    """The features of some rows of a batch."""
    values = {m: value[:, rows] for m, value in x.items()}
    return (
        Incomplete(values, {m: there[:, rows] for m, there in x.present.items()})
        if isinstance(x, Incomplete)
        else values
    )


def zeros_where_absent(rows: Tensor | None, values: Tensor) -> Tensor:
    """A vector of each row, `[..., B, D]`, which is zeros for rows that are not there."""
    return values if rows is None else torch.where(rows.unsqueeze(-1), values, 0.0)


def where_present(rows: Tensor | None, term: Tensor) -> Tensor:
    """A term of each row, `[..., R, B]`, which is 0 for rows that are not there."""
    return term if rows is None else torch.where(rows, term, 0.0)
