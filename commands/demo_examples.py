"""Which test images the demo's page shows, by rules that the page states."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHANGES = ((True, "one model loses the right answer while another keeps it"), (False, "a wrong answer turns right"))


@dataclass(frozen=True, eq=False)
class JudgedSplit:
    """The N test images of one split, and which models are right about them.

    Attributes:
        ids: N sample ids.
        labels: int64 `[N]`, their classes.
        right: by given modalities (`x+w`): whether each model is right about each image, bool `[models, N]`.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    right: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Chosen:
    """A test image by its split and row, and why, where it was chosen for what the models say."""

    split: int
    row: int
    reason: str = ""


def first_of_each_class(labels: NDArray[np.int64]) -> list[Chosen]:
    """The first test image of each class in the first split, in the order of the classes."""
    _, rows = np.unique(labels, return_index=True)
    return [Chosen(0, int(row)) for row in rows]


def where_covering_matters(
    splits: Sequence[JudgedSplit], both: str, cameras: Mapping[str, str], objects: Mapping[str, str], shown: set[str]
) -> Iterator[Chosen]:
    """For each camera the first images where covering it changes answers, each of an object not shown before.

    One where a model loses its right answer and another keeps it; one where a model's wrong answer turns right.

    Args:
        both: the modalities given while no camera is covered, `x+w`.
        cameras: name -> those given while it is covered.
        objects: sample id -> its object.
        shown: the objects that are shown already.
    """
    shown = set(shown)
    for camera, given in cameras.items():
        for lost, what in _CHANGES:
            for split, row in _changed(splits, both, given, lost):
                name = objects[splits[split].ids[row]]
                if name not in shown:
                    shown.add(name)
                    yield Chosen(split, row, f"With the {camera} camera covered, {what}.")
                    break


def _changed(splits: Sequence[JudgedSplit], both: str, given: str, lost: bool) -> Iterator[tuple[int, int]]:
    """Splits and rows where one model loses the right answer while another keeps it, or, not `lost`, one finds it."""
    for split, judged in enumerate(splits):
        before, after = judged.right[both], judged.right[given]
        changed = (before & ~after).any(0) & (before & after).any(0) if lost else (~before & after).any(0)
        yield from ((split, int(row)) for row in np.flatnonzero(changed))
