"""A person's rows as arrays: what is missing told apart from what is there, pictures encoded, mistakes named."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import Features, Modality, Scaling, value_fault

Picture = Any  # a path, an array or a PIL image, as an encoder takes them
Encode = Callable[[Sequence[Picture]], Features]
Inputs = Mapping[str, Any]
Present = Mapping[str, Any] | None

MISSING_HINT = "a missing modality is None, a row of NaN, or False in `present`"


def read_inputs(
    inputs: Inputs,
    present: Present,
    modalities: Sequence[Modality],
    encoder_of: Callable[[str], Encode],
) -> tuple[dict[str, Features], NDArray[np.bool_]]:
    """The values `[N, D]` of each modality, 0 in rows that lack it, and which modalities each row has, `[N, M]`.

    Args:
        inputs: by modality, an array `[N, D]`, a list of pictures (None where one is missing), or None if it is
            missing everywhere; a modality that is left out is missing too. A row of NaN is missing.
        present: by modality, booleans `[N]` that say which rows have it; what the others hold is not read.
        encoder_of: what turns pictures of a modality into its features; raises if there is nothing.

    Raises:
        UsageError: a modality or a width is not the model's, the numbers of rows differ, or a row holds nothing or
            values that are not finite.
        DataError: a picture cannot be read, or there is no encoder for it.
    """
    known = [modality.name for modality in modalities]
    for name in (*inputs, *(present or {})):
        if name not in known:
            raise UsageError(f"the model has no modality '{name}'", f"its modalities: {', '.join(known)}")
    given = {m: plain_array(inputs[m.name]) for m in modalities if inputs.get(m.name) is not None}
    counts = {m.name: len(values) for m, values in given.items()}
    if not counts:
        raise UsageError("no modality is given at all", f"give one of {', '.join(known)}")
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"the modalities have different numbers of rows: {', '.join(f'{n} {c}' for n, c in counts.items())}",
            "give one row per example in each; " + MISSING_HINT,
        )
    rows = next(iter(counts.values()))
    if rows == 0:
        raise UsageError("there are no rows", "give one at least")
    x: dict[str, Features] = {}
    there = np.zeros((rows, len(known)), np.bool_)
    for m, modality in enumerate(modalities):
        x[modality.name] = np.zeros((0, modality.width), np.float32)
        if modality in given:
            mask = _mask(present, modality.name, rows)
            x[modality.name], there[:, m] = _modality(given[modality], mask, modality, encoder_of)
        if not there[:, m].any():  # read by nobody, and a view takes no memory
            x[modality.name] = np.broadcast_to(np.float32(0), (rows, modality.width))
    nothing = np.flatnonzero(~there.any(1))
    if nothing.size:
        raise UsageError(f"row {nothing[0]} has no modality at all", MISSING_HINT + ", but each row needs one at least")
    return x, there


def check_values(x: Mapping[str, Features], present: NDArray[np.bool_], modalities: Sequence[Modality]) -> None:
    """Checks that scaled values lie where the model's distributions do.

    Raises:
        UsageError: one does not, so that the features were not made as the training rows' were.
    """
    for m, modality in enumerate(modalities):
        if present[:, m].any():
            fault = value_fault(x[modality.name], modality.distribution, 0)
            if fault:
                raise UsageError(
                    f"{modality.name} {fault}", "make the features exactly as those that the model was trained on"
                )


def scale(
    x: Mapping[str, Features], present: NDArray[np.bool_], scaling: Mapping[str, Scaling], names: Sequence[str]
) -> dict[str, Features]:
    """Values as the model was trained on, 0 in rows that lack the modality."""
    result = {}
    for m, name in enumerate(names):
        values = x[name]
        if name in scaling and present[:, m].any():
            values = scaling[name](values)
            if not present[:, m].all():
                values = np.where(present[:, m, None], values, np.float32(0))
        result[name] = values
    return result


def _mask(present: Present, name: str, rows: int) -> NDArray[np.bool_]:
    mask = None if present is None else present.get(name)
    if mask is None:
        return np.ones(rows, np.bool_)
    array = np.asarray(mask)
    if array.shape != (rows,) or array.dtype.kind != "b":
        raise UsageError(f"present['{name}'] is not one boolean per row: {array.dtype} {array.shape}, for {rows} rows")
    return array.astype(np.bool_)


def _modality(
    values: Any, mask: NDArray[np.bool_], modality: Modality, encoder_of: Callable[[str], Encode]
) -> tuple[Features, NDArray[np.bool_]]:
    if _are_vectors(values):
        return _vectors(values, mask, modality)
    pictures = list(values)
    there = mask & np.array([picture is not None for picture in pictures], np.bool_)
    x = np.zeros((len(pictures), modality.width), np.float32)
    if there.any():
        encoded = encoder_of(modality.name)([pictures[row] for row in np.flatnonzero(there)])
        x[there] = _vectors(encoded, np.ones(len(encoded), np.bool_), modality)[0]
    return x, there


def plain_array(values: Any) -> Any:
    """A tensor as NumPy's array, off its device and its graph, and a masked array with NaN where it is masked."""
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        tensor = values.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor).numpy()
    if isinstance(values, np.ma.MaskedArray):
        mask, data = np.ma.getmaskarray(values), np.ma.getdata(values)
        plain = data.astype(np.float64 if data.dtype.kind in "biuf" else object)
        plain[mask] = np.nan
        return plain
    return values


def _are_vectors(values: Any) -> bool:
    """Whether values are numbers `[N, D]` rather than pictures."""
    if isinstance(values, np.ndarray):
        return values.ndim == 2 or (values.ndim < 2 and values.dtype.kind in "biuf")
    if isinstance(values, list | tuple):
        first = next((value for value in values if value is not None), None)
        return first is None or (isinstance(first, list | tuple | np.ndarray) and np.ndim(first) == 1)
    return True  # a data frame, a tensor: what NumPy makes of it is looked at


def _vectors(values: Any, mask: NDArray[np.bool_], modality: Modality) -> tuple[Features, NDArray[np.bool_]]:
    if isinstance(values, list | tuple):
        values = [[np.nan] * modality.width if row is None else row for row in values]
    if isinstance(values, np.ndarray) and values.dtype.kind == "c":
        raise UsageError(f"{modality.name} holds complex numbers", "give the numbers that the model was trained on")
    try:
        with np.errstate(over="ignore"):  # a float64 that is too large becomes inf, which is refused
            x = np.array(values, np.float32)
    except (ValueError, TypeError):
        raise UsageError(f"{modality.name} is not an array of numbers, or its rows differ in width") from None
    except OverflowError:  # an integer of more than 300 digits
        raise UsageError(f"{modality.name} holds a value that is not finite", MISSING_HINT) from None
    if x.ndim != 2 or x.shape[1] != modality.width:
        raise UsageError(
            f"{modality.name} has the shape {x.shape}, but the model takes rows of {modality.width} values",
            "give the same features that the model was trained on",
        )
    there = mask & ~np.isnan(x).all(1)
    wrong = np.flatnonzero(there & ~np.isfinite(x).all(1))
    if wrong.size:
        raise UsageError(f"row {wrong[0]} of {modality.name} holds a value that is not finite", MISSING_HINT)
    if not there.all():
        x[~there] = 0
    return x, there
