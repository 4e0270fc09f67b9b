"""Classes of a person's labels, and the test part: a share of the labelled rows that cuts no group."""

import logging
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, StratifiedShuffleSplit

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.schema import is_class_name
from pipeline.sources.rows import Source

_log = logging.getLogger(__name__)
_DRAWS = 32  # divisions into groups among which the best is taken
_NAMED = 5  # classes that a message names
_NAME_THEM = "name the classes that will have labels later: --class cup --class bowl"


@dataclass(frozen=True, eq=False)
class Labelling:
    """The classes of a source and its parts.

    Attributes:
        classes: K names, in order.
        labels: int64 `[N]`, a class index or -1.
        groups: str `[N]`, empty for a row of its own, or None.
        test: bool `[N]`, the rows of the test part; all false if there is none.
        rule: how the test part was chosen, in words.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None
    test: NDArray[np.bool_]
    rule: str


def divide(source: Source, share: float | None, seed: int, named: Sequence[str] = ()) -> Labelling:
    """Orders the classes and chooses the test part: that of the column `split`, a share of the labelled rows, or none.

    Args:
        share: of the labelled rows, between 0 and 1; None for the source's own division, or no test part.
        seed: of the choice.
        named: all classes in their order, of which any may have no label yet; none to find them in the labels.

    Raises:
        UsageError: the share is not between 0 and 1, the source says itself what is for testing, or `named` are not the
            names of two classes or more.
        DataError: fewer than two classes have labels, or a label is not among those named; a group lies in both parts,
            or no division leaves every class that has labels a labelled row to train on.
    """
    if share is not None and not 0 < share < 1:
        raise UsageError(f"--test {share:g}: the share of rows for testing lies between 0 and 1", "example: --test 0.2")
    if share is not None and source.test is not None:
        raise UsageError("--test: the source has a column split, which says it already", "leave --test out")
    classes, labels = _named_classes(source, named) if named else _classes(source)
    groups = None if source.groups is None else np.array(source.groups, np.str_)
    if source.test is not None:
        test, rule = source.test, "the column split"
    elif share is not None:
        test, rule = _draw(source, labels, groups, classes, share, seed)
    else:
        test, rule = np.zeros(len(labels), np.bool_), "no test part"
    _check(source, classes, labels, groups, test)
    return Labelling(classes, labels, groups, test, rule)


def _classes(source: Source) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    known = {label for label in source.labels if label is not None}
    where = source.path
    if source.labels_from is None:
        raise DataError(
            f"{where}: has no column label, so there is nothing to learn",
            "name the column with the labels `label`, and leave it empty (or -1) where there is none; or "
            f"{_NAME_THEM}{_others(source)}",
        )
    if not known:
        raise DataError(
            f"{where}: no row has a label ({source.labels_from} says so), so there is nothing to learn",
            f"label a few rows of every class, or {_NAME_THEM}",
        )
    if len(known) == 1:
        raise DataError(
            f"{where}: all labels are {next(iter(known))!r}, but a classifier needs two classes", _NAME_THEM
        )
    odd = next((label for label in sorted(known) if not is_class_name(label)), None)
    if odd is not None:
        raise DataError(f"{where}: the label {odd!r} is not text, or is blank at its ends")
    numeric = all(label.removeprefix("-").isdecimal() for label in known)
    classes = tuple(sorted(known, key=(lambda label: (int(label), label)) if numeric else (lambda label: (0, label))))
    return classes, _indices(source, classes)


def _named_classes(source: Source, named: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    classes = tuple(named)
    odd = next((name for k, name in enumerate(classes) if name in classes[:k] or not is_class_name(name)), None)
    if odd is not None:
        raise UsageError(f"--class {odd!r}: is there twice, is not text, or is blank at its ends")
    if len(classes) < 2:
        raise UsageError("--class: a classifier needs two classes", "name each of them: --class cup --class bowl")
    other = next((label for label in source.labels if label is not None and label not in classes), None)
    if other is not None:
        raise DataError(
            f"{source.path}: a row has the label {other!r}, which --class does not name",
            f"add --class {shlex.quote(other)}, or correct the label",
        )
    return classes, _indices(source, classes)


def _indices(source: Source, classes: Sequence[str]) -> NDArray[np.int64]:
    index = {label: number for number, label in enumerate(classes)}
    return np.array([-1 if label is None else index[label] for label in source.labels], np.int64)


def _others(source: Source) -> str:
    """The columns that nothing was made of, of which one may hold the labels."""
    return "".join(f"; {note}" for note in source.notes if note.startswith("columns"))


def _draw(
    source: Source,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_] | None,
    classes: tuple[str, ...],
    share: float,
    seed: int,
) -> tuple[NDArray[np.bool_], str]:
    """The rows of the test part. Unlabelled rows stay in training, unless their group is for testing."""
    labelled = np.flatnonzero(labels >= 0)
    test = np.zeros(len(labels), np.bool_)
    if groups is None or (groups[labelled] == "").all():
        test[labelled[_stratified(labels[labelled], classes, share, seed)]] = True
        return test, f"{share:g} of the labelled rows, stratified by class, seed {seed}"
    units = np.array([group or f"\0{row}" for row, group in enumerate(groups.tolist())])  # no group: one of its own
    chosen = _whole_groups(source, labels[labelled], units[labelled], classes, share, seed)
    test[np.isin(units, np.unique(units[labelled[chosen]]))] = True
    return test, f"{share:g} of the labelled rows in whole groups, stratified as far as these allow, seed {seed}"


def _stratified(labels: NDArray[np.int64], classes: tuple[str, ...], share: float, seed: int) -> NDArray[np.intp]:
    counts = np.bincount(labels, minlength=len(classes))
    single = [classes[k] for k in np.flatnonzero(counts == 1)]
    if single:
        _log.warning("not tested, since they have one labelled row only: %s", _list(single))
    several = np.flatnonzero(counts[labels] > 1)
    tested = int((counts > 1).sum())
    size = round(share * len(labels))
    if not tested or not tested <= size <= len(several) - tested:
        raise DataError(
            f"--test {share:g} of {len(labels)} labelled rows is {size}, which cannot be divided so that each of "
            f"{len(classes)} classes is in both parts",
            "choose another share, or label more rows",
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=size, random_state=seed)
    _, chosen = next(splitter.split(several, labels[several]))
    return np.asarray(several[np.sort(chosen)], np.intp)


def _whole_groups(
    source: Source,
    labels: NDArray[np.int64],
    units: NDArray[np.str_],
    classes: tuple[str, ...],
    share: float,
    seed: int,
) -> NDArray[np.intp]:
    """The rows, among the labelled ones, of the groups for testing: of many draws the one nearest to stratified.

    A group that alone has the rows of a class stays in training, since without it the class could not be learned.
    """
    names, unit = np.unique(units, return_inverse=True)
    table = np.zeros((len(names), len(classes)), np.int64)  # rows per group and class
    np.add.at(table, (unit, labels), 1)
    alone = (table > 0).sum(axis=0) == 1
    kept: NDArray[np.bool_] = np.asarray(table[:, alone].any(axis=1))
    if alone.any():
        _log.warning(
            "not tested, since they have one group only: %s", _list([classes[k] for k in np.flatnonzero(alone)])
        )
    free = np.flatnonzero(~kept[unit])
    if len(np.unique(unit[free])) < 2:
        raise DataError(
            f"{source.path}: its groups cannot be divided: each holds all labelled rows of a class",
            "choose another --group, or leave --test out",
        )
    totals = table.sum(axis=0)

    def cost(rows: NDArray[np.intp]) -> tuple[int, float]:
        counts = np.bincount(labels[rows], minlength=len(classes))
        without = int((counts == totals).sum()) * len(classes) + int((counts[~alone] == 0).sum())
        return without, float(np.abs(counts - share * totals).sum())

    draws = [
        free[chosen]
        for _, chosen in GroupShuffleSplit(_DRAWS, test_size=share, random_state=seed).split(free, groups=unit[free])
    ]
    folds = round(1 / share)
    if 2 <= folds <= len(np.unique(unit[free])) and folds <= np.bincount(labels[free]).max():
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with few rows, which the cost looks after
            draws += [free[chosen] for _, chosen in splitter.split(free, labels[free], unit[free])]
    best = min((rows for rows in draws if len(rows)), key=cost)
    return np.sort(best)


def _check(
    source: Source,
    classes: tuple[str, ...],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_] | None,
    test: NDArray[np.bool_],
) -> None:
    if groups is not None:
        both = sorted((set(groups[test].tolist()) & set(groups[~test].tolist())) - {""})
        if both:
            raise DataError(
                f"{source.path}: the group {both[0]!r} has rows in both splits",
                "put all rows of a group into one split, or leave out the column split and use --test",
            )
    tested, trained = (np.bincount(labels[part & (labels >= 0)], minlength=len(classes)) for part in (test, ~test))
    untrained = np.flatnonzero((tested > 0) & (trained == 0))
    if untrained.size:
        raise DataError(
            f"{source.path}: no labelled training row is of the class {_list([classes[k] for k in untrained])}",
            "every class needs a label to learn from: choose a smaller --test, another --seed, or another split",
        )
    if test.any() and not (labels[test] >= 0).any():
        raise DataError(f"{source.path}: no row of the test part has a label, so nothing can be scored")
    if test.all():
        raise DataError(f"{source.path}: every row is for testing, and none is left to train on")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
