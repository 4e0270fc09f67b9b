"""One picture as a person has it: colour in any form, depth of 16 bits or floats, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.depth import encode_depth, scale_depth
from pipeline.images.reading import colour_of, depth_of, read_colour, read_depth
from pipeline.runtime.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEPTH = np.random.default_rng(1).integers(0, 65536, (5, 7), dtype=np.uint16)


@pytest.mark.parametrize(
    ("picture", "suffix", "expected"),
    [
        (Image.fromarray(RGB), ".png", RGB),
        (Image.fromarray(RGB), ".BMP", RGB),
        (Image.fromarray(RGB), ".tiff", RGB),
        (Image.fromarray(GREY), ".png", np.repeat(GREY[..., None], 3, 2)),
        (Image.fromarray(GREY > 127), ".png", np.repeat(np.where(GREY > 127, 255, 0)[..., None], 3, 2)),
        (Image.fromarray(DEPTH), ".png", np.repeat((DEPTH >> 8)[..., None], 3, 2)),
        (Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])), ".png", RGB),
        (Image.fromarray(np.dstack([RGB, np.where(GREY > 127, 255, 0).astype(np.uint8)])), ".png",
         np.where(GREY[..., None] > 127, RGB, 0)),
        (Image.fromarray(np.dstack([GREY, np.zeros_like(GREY)])), ".png", np.zeros_like(RGB)),
    ],
    ids=["rgb", "bmp", "tiff", "grey", "one bit", "16 bits", "opaque", "transparent", "grey and alpha"],
)  # fmt: skip
def test_colour_in_any_form(picture: Image.Image, suffix: str, expected: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / f"a picture ü{suffix}"
    picture.save(path)
    found = read_colour(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_palette_and_a_picture_on_its_side(tmp_path: Path) -> None:
    few = Image.fromarray(RGB // 64 * 64).quantize(64)
    few.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_colour(tmp_path / "palette.png"), np.asarray(few.convert("RGB")))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    turned = read_colour(tmp_path / "turned.jpg")
    assert turned.shape == (7, 5, 3)
    assert abs(turned.astype(int) - np.rot90(RGB, -1)).mean() < 10


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_depth_of_16_bits(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"depth{suffix}"
    np.save(path, DEPTH) if suffix == ".npy" else Image.fromarray(DEPTH).save(path)
    found = read_depth(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, DEPTH)


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_depth_in_floats_with_holes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"depth{suffix}"
    values = np.array([[0.5, np.nan, 1.25], [0.0, np.inf, 3.5]], np.float32)
    np.save(path, values.astype(np.float64)) if suffix == ".npy" else Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_depth(path), [[0.5, 0, 1.25], [0, 0, 3.5]])


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Image.fromarray(GREY), "has 8 bits per pixel, so it was made for looking at"),
        (Image.fromarray(RGB), "is in colours: either depth that was coloured .* or the colour picture"),
        (Image.fromarray(np.repeat(GREY[..., None], 3, 2)), "is an 8-bit grey picture stored as colours"),
        (Image.fromarray(RGB).quantize(16), "is in colours"),
    ],
    ids=["8 bits", "colours", "grey as colours", "palette"],
)
def test_what_is_not_depth_is_refused_with_the_usual_cause(picture: Image.Image, words: str, tmp_path: Path) -> None:
    path = tmp_path / "depth.png"
    picture.save(path)
    with pytest.raises(DataError, match=rf"depth\.png: {words}") as caught:
        read_depth(path)
    assert "16 bits or floats" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (RGB, r"is uint8 \(5, 7, 3\), but depth is"),
        (GREY, r"is uint8 \(5, 7\), but depth is"),
        (DEPTH[0], r"is uint16 \(7,\)"),
        (-DEPTH.astype(np.float32), "holds -.*, and a distance is not negative"),
        (np.empty((0, 3), np.float32), r"\(0, 3\)"),
    ],
)
def test_arrays_that_are_not_depth(values: NDArray[np.generic], words: str) -> None:
    with pytest.raises(DataError, match=f"given: .*{words}"):
        depth_of(values, "given")


@pytest.mark.parametrize("values", [DEPTH, GREY, RGB.astype(np.float32), np.dstack([RGB, GREY])])
def test_arrays_that_are_not_colours(values: NDArray[np.generic]) -> None:
    with pytest.raises(DataError, match=r"given: is .*, but a colour picture is uint8 \[H, W, 3\]"):
        colour_of(values, "given")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(RGB).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00")
    for name in ("text.png", "cut.png"):
        with pytest.raises(DataError, match=rf"{name}: not a readable picture"):
            read_colour(tmp_path / name)
    for name in ("objects.npy", "cut.npy"):
        with pytest.raises(DataError, match=rf"{name}: not a readable array"):
            read_depth(tmp_path / name)
    for read in (read_colour, read_depth):
        with pytest.raises(DataError, match=r"none\.png: the file is missing"):
            read(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"none\.npy: the file is missing"):
        read_depth(tmp_path / "none.npy")
    Image.fromarray(DEPTH.astype(np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(DataError, match="so it is no colour picture"):
        read_colour(tmp_path / "floats.tif")
    monkeypatch.setattr("pipeline.images.reading.MOST_PIXELS", 30)
    Image.fromarray(DEPTH).save(tmp_path / "large.png")
    np.save(tmp_path / "large.npy", DEPTH)
    for name in ("large.png", "large.npy"):
        with pytest.raises(DataError, match="it declares"):
            read_depth(tmp_path / name)


@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 65535)))
def test_whole_numbers_are_encoded_alike_in_both_types(depth: NDArray[np.uint16]) -> None:
    np.testing.assert_array_equal(scale_depth(depth.astype(np.float32)), scale_depth(depth))
    np.testing.assert_array_equal(encode_depth(depth.astype(np.float32), size=32), encode_depth(depth, size=32))


def test_the_unit_of_depth_changes_nothing() -> None:
    metres = np.where(DEPTH < 9000, 0, DEPTH).astype(np.float32)
    np.testing.assert_allclose(
        encode_depth((metres / 1024).astype(np.float32), "raw", size=32).astype(int),
        encode_depth(metres, "raw", size=32),
        atol=1,
    )
