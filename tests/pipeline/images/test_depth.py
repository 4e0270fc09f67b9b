"""Depth as colours: resized, its holes filled, scaled, and encoded as jet or as normals."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from pipeline.datasets.washington import FOCAL
from pipeline.images.contact_sheet import Preview, contact_sheet
from pipeline.images.depth import (
    DEPTH_ENCODINGS,
    JET,
    Depth,
    depth_flaw,
    encode_depth,
    encode_normals,
    fill_holes,
    jet,
    scale_depth,
    surface_normals,
)
from pipeline.images.resize import Bytes, resize_depth, resize_rgb
from pipeline.runtime.errors import UsageError

DEPTHS = arrays(
    np.uint16,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24),
    elements=st.one_of(st.just(0), st.integers(600, 640), st.integers(0, 65535)),
)


def mm(rows: object) -> NDArray[np.uint16]:
    return np.array(rows, np.uint16)


# Golden arrays, worked out by hand.


def test_a_wide_crop_is_centred_and_its_border_rows_repeat() -> None:
    # 4 x 2 into 4: no scaling, one row above and one below.
    depth = mm([[1, 2, 3, 4], [5, 6, 7, 8]])
    expected = [[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8], [5, 6, 7, 8]]
    np.testing.assert_array_equal(resize_depth(depth, 4), expected)
    rgb = np.repeat(depth[..., None], 3, axis=2).astype(np.uint8)
    np.testing.assert_array_equal(resize_rgb(rgb, 4)[..., 1], expected)


def test_a_tall_crop_is_centred_and_its_border_columns_repeat() -> None:
    # 2 wide, 4 tall, into 5: heights 4 -> 5, widths 2 -> 2.5 -> 3, one column on each side.
    # Rows: centres (2 i + 1) * 4 / 10 = 0.4, 1.2, 2, 2.8, 3.6; columns: (2 j + 1) * 2 / 6 = 0.33, 1, 1.67.
    depth = mm([[1, 2], [3, 4], [5, 6], [7, 8]])
    expected = [[1, 1, 2, 2, 2], [3, 3, 4, 4, 4], [5, 5, 6, 6, 6], [5, 5, 6, 6, 6], [7, 7, 8, 8, 8]]
    np.testing.assert_array_equal(resize_depth(depth, 5), expected)


def test_shrinking_depth_takes_the_pixel_under_each_centre() -> None:
    np.testing.assert_array_equal(
        resize_depth(mm(np.arange(81).reshape(9, 9)), 3), [[10, 13, 16], [37, 40, 43], [64, 67, 70]]
    )


def test_rgb_is_antialiased() -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    inside = resize_rgb(stripes, 24)[:, 1:-1]
    assert np.abs(inside.astype(int) - 127).max() <= 2  # point sampling would give 0 or 255


def test_holes_take_the_nearest_valid_value() -> None:
    depth = mm([[7, 0, 0, 0, 9], [0, 0, 0, 0, 0], [0, 0, 5, 0, 0]])
    filled = fill_holes(depth)
    # Row 0: column 1 is 1 from the 7; column 2 is 2 from all three; column 3 is 1 from the 9.
    assert filled[0].tolist()[:2] + filled[0].tolist()[3:] == [7, 7, 9, 9]
    assert filled[0, 2] in (5, 7, 9)
    # Row 1: the middle is 1 from the 5; row 2: column 1 is 1 from the 5, column 0 2 from the 7 and from the 5.
    assert (filled[1, 0], filled[1, 2], filled[1, 4]) == (7, 5, 9)
    assert (filled[2, 1], filled[2, 2], filled[2, 3]) == (5, 5, 5)


def test_depth_scales_to_the_whole_range_and_rounds_half_up() -> None:
    np.testing.assert_array_equal(scale_depth(mm([[1000, 1255, 1100]])), [[0, 255, 100]])
    # Over an extent of 510, one millimetre is half a level.
    np.testing.assert_array_equal(scale_depth(mm([[600, 601, 602, 1110]])), [[0, 1, 1, 255]])
    np.testing.assert_array_equal(scale_depth(mm([[0, 65535]])), [[0, 255]])


def test_jet_is_the_usual_table_with_red_near_and_blue_far() -> None:
    usual = matplotlib.colormaps["jet_r"](np.arange(256), bytes=True)[:, :3]
    assert np.abs(JET.astype(int) - usual).max() <= 1
    near, far = jet(np.array([[0, 255]], np.uint8))[0]
    assert near.tolist() == [127, 0, 0]
    assert far.tolist() == [0, 0, 127]
    red, _, blue = JET[40].tolist(), JET[128], JET[215].tolist()
    assert red[0] > 200
    assert red[2] == 0
    assert blue[2] > 200
    assert blue[0] == 0
    assert not JET.flags.writeable


# Surface normals against geometry.


def rendered_plane(
    normal: Sequence[float] | NDArray[np.float64],
    distance: float,
    shape: tuple[int, int] = (40, 50),
    corner: tuple[int, int] = (300, 260),
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Exact depth of the plane normal . P = distance, seen through the same pinhole."""
    v, u = np.mgrid[: shape[0], : shape[1]].astype(float)
    rays = np.stack([(u + corner[0] - 320) / FOCAL, (v + corner[1] - 240) / FOCAL, np.ones(shape)], axis=-1)
    return distance / (rays @ np.asarray(normal, float)), corner


@pytest.mark.parametrize("tilt", [(0, 0, -1), (0.3, 0.2, -0.93), (-0.6, 0.1, -0.79), (0.05, -0.8, -0.6)])
def test_normals_of_a_plane_are_the_planes(tilt: tuple[float, float, float]) -> None:
    normal = np.asarray(tilt) / np.linalg.norm(tilt)
    depth, corner = rendered_plane(normal, -750 * abs(normal[2]))
    normals = surface_normals(np.rint(depth).astype(np.uint16), corner)
    angles = np.degrees(np.arccos(np.clip(normals @ normal, -1, 1)))
    assert np.median(angles) < 2  # whole millimetres at 1.3 mm a pixel
    assert angles[4:-4, 4:-4].max() < 8


def test_normals_at_a_step_belong_to_either_side() -> None:
    depth = np.full((30, 30), 700, np.uint16)
    depth[:, 15:] = 900
    np.testing.assert_allclose(
        surface_normals(depth, (306, 226)), np.broadcast_to([0, 0, -1.0], (30, 30, 3)), atol=1e-5
    )


def test_normals_encode_to_the_usual_colours() -> None:
    axes = np.array([[[0, 0, -1], [1, 0, 0], [0, -1, 0], [-1, 0, 0]]], np.float32)
    np.testing.assert_array_equal(
        encode_normals(axes), [[[128, 128, 255], [255, 128, 128], [128, 255, 128], [0, 128, 128]]]
    )


@given(DEPTHS)
@settings(max_examples=40, deadline=None)
def test_normals_have_unit_length_and_face_the_camera(depth: Depth) -> None:
    corner = (300, 200)
    normals = surface_normals(depth, corner)
    assert normals.shape == (*depth.shape, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-4)
    valid = depth > 0
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    rays = np.stack([(u + corner[0] - 320) / FOCAL, (v + corner[1] - 240) / FOCAL, np.ones(depth.shape)], axis=-1)
    assert ((normals * rays).sum(-1)[valid] < 0).all()


# Properties.


@given(DEPTHS)
@settings(max_examples=80, deadline=None)
def test_filling_keeps_valid_pixels_invents_nothing_and_is_idempotent(depth: Depth) -> None:
    before = depth.copy()
    filled = fill_holes(depth)
    valid = depth > 0
    np.testing.assert_array_equal(depth, before)
    np.testing.assert_array_equal(filled[valid], depth[valid])
    np.testing.assert_array_equal(fill_holes(filled), filled)
    if valid.any():
        assert (filled > 0).all()
        assert set(np.unique(filled)) == set(np.unique(depth[valid]))


@given(arrays(np.uint16, (6, 7), elements=st.one_of(st.just(0), st.integers(1, 9))))
@settings(max_examples=60, deadline=None)
def test_filling_agrees_with_a_search_over_all_valid_pixels(depth: Depth) -> None:
    valid = np.argwhere(depth > 0)
    filled = fill_holes(depth)
    for place in np.argwhere(depth == 0) if len(valid) else ():
        squared = ((valid - place) ** 2).sum(1)
        nearest = {depth[tuple(pixel)] for pixel in valid[squared == squared.min()]}
        assert filled[tuple(place)] in nearest


@given(DEPTHS, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_resizing_depth_invents_no_value(depth: Depth, size: int) -> None:
    resized = resize_depth(depth, size)
    assert resized.shape == (size, size)
    assert resized.dtype == np.uint16
    assert set(np.unique(resized)) <= set(np.unique(depth))


@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_resizing_rgb_stays_in_range_and_extends_the_border(rgb: Bytes, size: int) -> None:
    resized = resize_rgb(rgb, size)
    assert resized.shape == (size, size, 3)
    assert resized.min() >= rgb.min()
    assert resized.max() <= rgb.max()
    height, width = rgb.shape[:2]
    if width > height:
        np.testing.assert_array_equal(resize_rgb(rgb[:, ::-1], size), resize_rgb(rgb, size)[:, ::-1])
        spare = (size - max(1, round(height * size / width))) // 2
        assert (resized[:spare] == resized[spare]).all()


@given(DEPTHS)
@settings(max_examples=60, deadline=None)
def test_scaling_keeps_the_order_and_spans_the_range(depth: Depth) -> None:
    levels = scale_depth(depth)
    order = np.argsort(depth, axis=None)
    assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()
    if depth.min() < depth.max():
        assert (levels.min(), levels.max()) == (0, 255)


# Degenerate crops.


@pytest.mark.parametrize(
    ("depth", "flaw"),
    [
        (np.zeros((9, 6), np.uint16), "every depth value is missing"),
        (np.zeros((1, 1), np.uint16), "every depth value is missing"),
        (np.full((9, 6), 700, np.uint16), "every valid depth value is 700"),
        (np.arange(600, 640, dtype=np.uint16)[:, None], "the crop is 1 x 40, one pixel wide"),
        (np.arange(600, 640, dtype=np.uint16)[None], "the crop is 40 x 1, one pixel wide"),
        (mm([[0, 0], [0, 801]]), "every valid depth value is 801"),
        (mm([[800, 0], [0, 801]]), None),
    ],
)
def test_a_degenerate_crop_has_a_defined_encoding_and_a_warning(depth: Depth, flaw: str | None) -> None:
    assert depth_flaw(depth) == flaw
    for encoding in DEPTH_ENCODINGS:
        encoded = encode_depth(depth, encoding, corner=(200, 100))
        assert encoded.shape == (148, 148, 3)
        assert encoded.dtype == np.uint8
        if flaw is not None and "every" in flaw and encoding != "normals":
            colour = JET[0].tolist() if encoding == "jet" else [0, 0, 0]
            assert np.unique(encoded.reshape(-1, 3), axis=0).tolist() == [colour]


def test_without_any_depth_the_normals_face_the_camera() -> None:
    encoded = encode_depth(np.zeros((7, 9), np.uint16), "normals", corner=(1, 1))
    assert np.unique(encoded.reshape(-1, 3), axis=0).tolist() == [[128, 128, 255]]


def test_an_empty_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        resize_depth(np.zeros((0, 5), np.uint16))


def test_encodings_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(UsageError, match=r"_loc\.txt"):
        encode_depth(mm([[700, 701]]), "normals")
    with pytest.raises(UsageError, match="'hha': one of jet, normals, raw"):
        encode_depth(mm([[700, 701]]), "hha")  # type: ignore[arg-type]


def test_encoding_fills_then_scales_then_resizes() -> None:
    # The hole would be nearest to 900 or to 600; its own value (0) must not widen the range.
    depth = mm([[600, 600, 0, 900]] * 4)
    encoded = encode_depth(depth, "raw", size=4)
    assert set(np.unique(encoded)) == {0, 255}
    np.testing.assert_array_equal(encode_depth(depth, "jet", size=4), JET[encoded[..., 0]])
    # Shrinking does not lose the only valid pixel.
    lonely = np.zeros((300, 300), np.uint16)
    lonely[1, 1], lonely[298, 298] = 600, 700
    assert set(np.unique(encode_depth(lonely, "raw"))) == {0, 255}


def test_the_contact_sheet_shows_every_frame_and_marks_holes() -> None:
    rng = np.random.default_rng(0)
    depth = rng.integers(600, 700, (30, 20), dtype=np.uint16)
    depth[:10] = 0
    frames = [
        Preview(f"cup_{k}_1_1", rng.integers(0, 256, (30, 20, 3), dtype=np.uint8), depth, (9, 9)) for k in range(9)
    ]
    single, nine = contact_sheet(frames[:1]), contact_sheet(frames, "normals")
    assert nine.width > single.width
    assert nine.height > 4 * 148
    marked = (np.asarray(single) == [255, 0, 160]).all(-1).sum()
    assert marked == pytest.approx(148 * 148 / 3, rel=0.02)
    assert (np.asarray(contact_sheet([])) == [250, 250, 248]).any()
