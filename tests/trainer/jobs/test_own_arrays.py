"""Labels and values as other libraries give them: what they mean, and no silent change of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import Modality
from trainer.inference.inputs import read_inputs
from trainer.jobs.estimator import Classifier
from trainer.jobs.own_arrays import InputError, as_numbers, read_labels

X = np.arange(12, dtype=np.float64).reshape(4, 3)


class NAType:
    """As pandas' own: to ask whether it is equal to something, or true, is an error."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other: object) -> Any:
        return self

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize("nothing", [float("nan"), -1, None, "", NAType(), np.float64("nan"), -1.0])
@pytest.mark.parametrize("form", [list, tuple, lambda y: np.array(y, object)])
def test_what_stands_for_no_label_beside_texts(nothing: object, form: Callable[[Any], Any]) -> None:
    classes, index = read_labels(form(["cup", nothing, "hat", nothing]), 4)
    assert classes.tolist() == ["cup", "hat"]
    assert index.tolist() == [0, -1, 1, -1]


def values_of(x: Any) -> NDArray[np.float32]:
    def no_encoder(name: str) -> Any:
        raise UsageError(f"there is no encoder for {name}")

    return read_inputs({"x": x}, None, [Modality("x", 3, "gaussian")], no_encoder)[0]["x"]


@pytest.mark.parametrize(
    "given",
    [
        X.astype(object), X.astype(str), X.astype(">f8"), np.asfortranarray(X), np.repeat(X, 2, 1)[:, ::2], X.tolist(),
        torch.tensor(X, requires_grad=True), torch.tensor(X).to(torch.bfloat16), np.ma.masked_less(X, -1),
    ],
    ids=["objects", "texts", "big-endian", "Fortran", "strided", "lists", "tensor with gradient", "bfloat16", "masked"],
)  # fmt: skip
def test_fit_and_predict_read_the_same(given: Any) -> None:
    np.testing.assert_array_equal(as_numbers("x", given), X.astype(np.float32))
    np.testing.assert_array_equal(values_of(given), X.astype(np.float32))


def test_what_is_masked_is_missing() -> None:
    masked = np.ma.array(X, mask=np.repeat([[False], [True], [False], [False]], 3, 1))
    assert np.isnan(as_numbers("x", masked)).all(1).tolist() == [False, True, False, False]
    with pytest.raises(UsageError, match="row 1 has no modality"):
        values_of(masked)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="complex numbers"):
        as_numbers("x", X + 1j)
    with pytest.raises(UsageError, match="complex numbers"):
        values_of(X + 1j)


class Frame:
    """A data frame, as far as it matters here."""

    def __init__(self, columns: str) -> None:
        self.columns = list(columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(X[:, ["abc".index(name) for name in self.columns]], dtype)


def test_columns_of_frames_come_in_the_order_of_fit() -> None:
    classifier = Classifier()
    classifier._check_columns({"x": Frame("abc"), "w": X}, reset=True)
    classifier._check_columns({"x": Frame("abc"), "w": Frame("ab")}, reset=False)
    classifier._check_columns({"x": X}, reset=False)
    with pytest.raises(InputError, match="columns of x are not those of fit, in their order: column 0 is 'c'"):
        classifier._check_columns({"x": Frame("cba")}, reset=False)
