"""A person's rows: every way to say that something is missing, and a sentence for every mistake."""

from typing import Any

import numpy as np
import pytest

from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import Features, Modality, Scaling
from trainer.inference.inputs import Encode, check_values, read_inputs, scale

X, W = Modality("x", 3, "gaussian"), Modality("w", 2, "bernoulli")
VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
HALVES = np.full((4, 2), 0.5)


def encoder_of(name: str) -> Encode:
    def encode(pictures: Any) -> Features:
        return np.array([[len(picture)] * 3 for picture in pictures], np.float32)

    if name != "x":
        raise UsageError(f"there is no encoder for {name}")
    return encode


def read(inputs: dict[str, Any], present: dict[str, Any] | None = None) -> tuple[dict[str, Features], list[str]]:
    x, there = read_inputs(inputs, present, (X, W), encoder_of)
    return x, ["".join(m for m, given in zip("xw", row, strict=True) if given) for row in there]


def test_missing_is_none_a_row_of_nan_a_mask_or_left_out() -> None:
    some = VALUES.copy()
    some[1] = np.nan
    cases: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
        ({"x": some, "w": HALVES}, None),
        ({"x": [None if k == 1 else row for k, row in enumerate(VALUES)], "w": HALVES}, None),
        ({"x": VALUES, "w": HALVES}, {"x": np.array([True, False, True, True])}),
    ]
    for inputs, present in cases:
        x, there = read(inputs, present)
        assert there == ["xw", "w", "xw", "xw"]
        np.testing.assert_array_equal(x["x"], np.where([[True], [False], [True], [True]], VALUES, 0))
    for w in ({}, {"w": None}, {"w": np.full((4, 2), np.nan)}):
        x, there = read({"x": VALUES, **w})
        assert there == ["x"] * 4
        assert x["w"].shape == (4, 2)


def test_pictures_are_encoded_and_some_may_be_missing() -> None:
    x, there = read({"x": ["a", None, "ccc", None], "w": HALVES})
    assert there == ["xw", "w", "xw", "w"]
    np.testing.assert_array_equal(x["x"][:, 0], [1, 0, 3, 0])


@pytest.mark.parametrize(
    ("inputs", "present", "sentence"),
    [
        ({"v": VALUES}, None, "no modality 'v'"),
        ({"x": VALUES}, {"v": np.ones(4, bool)}, "no modality 'v'"),
        ({}, None, "no modality is given at all"),
        ({"x": None, "w": None}, None, "no modality is given at all"),
        ({"x": VALUES[:0]}, None, "there are no rows"),
        ({"x": VALUES, "w": HALVES[:3]}, None, "different numbers of rows: x 4, w 3"),
        ({"x": VALUES[:, :2]}, None, r"x has the shape \(4, 2\), but the model takes rows of 3 values"),
        ({"x": [[1, 2, 3], [1, 2]]}, None, "its rows differ in width"),
        ({"x": [["a", "b", "c"]]}, None, "x is not an array of numbers"),
        ({"x": np.array([[1, np.nan, 3]])}, None, "row 0 of x holds a value that is not finite"),
        ({"x": np.array([[1, np.inf, 3]])}, None, "row 0 of x holds a value that is not finite"),
        ({"x": np.array([[1, 1e300, 3]])}, None, "row 0 of x holds a value that is not finite"),
        ({"x": VALUES}, {"x": np.array([True, True, False, True])}, "row 2 has no modality at all"),
        ({"x": VALUES}, {"x": [1, 0, 1, 1]}, "not one boolean per row"),
        ({"w": ["a.png"]}, None, "there is no encoder for w"),
    ],
)
def test_mistakes_are_named(inputs: dict[str, Any], present: dict[str, Any] | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read(inputs, present)


def test_values_are_scaled_and_checked_where_they_are() -> None:
    scaling = {"x": Scaling(np.ones(3, np.float32), np.full(3, 2, np.float32))}
    x, there = read_inputs({"x": VALUES, "w": HALVES}, {"x": np.arange(4) < 3}, (X, W), encoder_of)
    scaled = scale(x, there, scaling, ("x", "w"))
    np.testing.assert_allclose(scaled["x"][:3], (VALUES[:3] - 1) / 2)
    assert not scaled["x"][3].any()
    assert scaled["w"] is x["w"]
    check_values(scaled, there, (X, W))
    with pytest.raises(UsageError, match=r"w holds 255, outside the \[0, 1\]"):
        check_values({"x": VALUES, "w": np.full((4, 2), 255, np.float32)}, there, (X, W))
