"""A person's arrays and labels as the content of a shard, for `trainer.jobs.estimator`."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets

from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import Distribution, Features, Modality, Scaling, is_class_name
from trainer.inference.card import LABEL_TYPES, LabelType
from trainer.inference.inputs import plain_array

UNLABELLED = -1
ONE = "x"  # the name of the modality that a single array is
Columns = Mapping[str, tuple[int, int]]


class InputError(UsageError, ValueError):
    """Rows or labels that cannot be used; scikit-learn's tools expect a ValueError."""


def as_numbers(name: str, values: Any) -> Features:
    values = plain_array(values)
    if isinstance(values, np.ndarray) and values.dtype.kind == "c":
        raise InputError(f"{name} holds complex numbers", "give their real and imaginary parts as columns")
    try:
        with np.errstate(over="ignore"):  # a float64 that is too large becomes inf, which is refused
            x = np.array(values, np.float32)
    except (ValueError, TypeError):
        raise InputError(f"{name} is not an array of numbers, or its rows differ in width") from None
    if x.ndim != 2 or not x.shape[1]:
        raise InputError(f"{name} has the shape {x.shape}, not [rows, width]", "reshape your data: one row per example")
    return x


def divided(x: Features, columns: Columns | None) -> dict[str, Features]:
    """An array as its modalities.

    Raises:
        InputError: a range does not lie within its columns.
    """
    if columns is None:
        return {ONE: x}
    for name, (first, end) in columns.items():
        if not 0 <= first < end <= x.shape[1]:
            raise InputError(f"columns of {name}: {first} to {end} do not lie within the array's {x.shape[1]}")
    return {name: np.ascontiguousarray(x[:, first:end]) for name, (first, end) in columns.items()}


def read_labels(y: Any, rows: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes, sorted, and each row's index into them, or -1.

    Raises:
        InputError: there is not one label per row, labels are not classes, or there are fewer than two classes.
    """
    values = np.asarray(_as_given(y))
    if values.ndim == 2 and values.shape[1] == 1:
        _warn_column()
        values = values[:, 0]
    if values.shape != (rows,):
        raise InputError(f"y has the shape {values.shape}, but there are {rows} rows")
    known = np.array([not _is_unlabelled(value) for value in values.tolist()], np.bool_)
    labels = values[known]
    if labels.dtype.kind == "O":
        labels = np.array(labels.tolist())
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError("Input y contains infinity or a value too large")
    check_classification_targets(labels) if labels.size else None
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y has {len(classes)} class; label rows of two classes at least")
    if classes.dtype.kind == "f" and (classes == classes.astype(np.int64)).all() and values.dtype.kind != "f":
        classes = classes.astype(np.int64)  # whole numbers beside None
    result = np.full(rows, UNLABELLED, np.int64)
    result[known] = index
    return classes, result


def _warn_column() -> None:
    warnings.warn("A column-vector y was passed when a 1d array was expected.", DataConversionWarning, stacklevel=4)


def _as_given(y: Any) -> Any:
    """Labels in which NumPy made no text of NaN and -1 that stand beside texts."""
    if isinstance(y, list | tuple) and any(isinstance(value, str) for value in y):
        values = np.empty(len(y), object)
        values[:] = y
        return values
    return plain_array(y)


def _is_unlabelled(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas, which need not be installed
        return True
    return value == "" if isinstance(value, str) else bool(value == UNLABELLED)


def class_names(classes: NDArray[Any]) -> tuple[list[str], LabelType]:
    """The classes as text, and what they were; a label that a shard cannot hold as a name is numbered."""
    names = [str(value) for value in classes.tolist()]
    valid = all(map(is_class_name, names))
    if not valid or len(set(names)) < len(names):
        return [f"class {k}" for k in range(len(names))], "text"
    return names, LABEL_TYPES.get(classes.dtype.kind, "text")


def fingerprint(
    x: Mapping[str, Features], classes: NDArray[Any], labels: NDArray[np.int64], modalities: Sequence[Modality]
) -> str:
    """Tells the rows, labels and distributions of one fit from those of another."""
    digest = hashlib.sha256(repr((classes.tolist(), modalities)).encode())
    for values in (*x.values(), labels):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:16]


def prepared(
    x: Mapping[str, Features], present: Mapping[str, NDArray[np.bool_]], chosen: Mapping[str, Distribution]
) -> tuple[list[Modality], dict[str, Scaling], dict[str, Features]]:
    """Each modality's distribution, and its values scaled as that takes, 0 where missing.

    Values in [0, 1] are bernoulli, others of at least 0 nonnegative, the rest gaussian. Gaussian values get mean 0 and
    deviation 1 in each column, nonnegative ones a mean square of 1 in all.
    """
    modalities, scaling, result = list[Modality](), dict[str, Scaling](), dict[str, Features]()
    for name in chosen:
        if name not in x:
            raise InputError(f"distributions names '{name}', which X does not hold")
    for name, values in x.items():
        rows = values[present[name]] if present[name].any() else np.zeros((1, values.shape[1]), np.float32)
        low, high = float(rows.min()), float(rows.max())
        family: Distribution = "bernoulli" if low >= 0 and high <= 1 else "nonnegative" if low >= 0 else "gaussian"
        family = chosen.get(name, family)
        width = values.shape[1]
        if family != "bernoulli":
            wide = rows.astype(np.float64)
            mean = wide.mean(0) if family == "gaussian" else np.zeros(width)
            deviation = (
                wide.std(0) if family == "gaussian" else np.full(width, math.sqrt(float(np.square(wide).mean())))
            )
            deviation[deviation <= 1e-6 * np.maximum(1, np.abs(mean))] = 1
            scaling[name] = Scaling(mean.astype(np.float32), deviation.astype(np.float32))
            values = scaling[name](values)
        modalities.append(Modality(name, width, family))
        result[name] = np.where(present[name][:, None], values, np.float32(0))
    return modalities, scaling, result


def lacking(present: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]] | None:
    """The masks of modalities that some rows lack."""
    return {name: rows for name, rows in present.items() if not rows.all()} or None
