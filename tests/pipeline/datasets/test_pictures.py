"""Decoding a person's pictures: what is read rightly, and what is refused with its usual cause."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.pictures import WrongKindError, picture_facts, read_colour, read_depth
from pipeline.runtime.errors import DataError
from tests.support.own_pictures import colour, depth, save

RED = (255, 0, 0)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".npy"])
def test_16_bit_depth_is_read_as_it_is(suffix: str, tmp_path: Path) -> None:
    read = read_depth(save(tmp_path / f"depth{suffix}", depth(1)))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, depth(1))
    assert picture_facts(tmp_path / f"depth{suffix}").size == (32, 24)


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".tif", np.float32), (".npy", np.float32), (".npy", np.float64), (".npy", np.float16)]
)
def test_floating_point_depth_keeps_its_unit(suffix: str, kind: type, tmp_path: Path) -> None:
    values: NDArray[Any] = np.array([[0.5, np.nan, 0], [np.inf, -1, 2.25]], kind)
    read = read_depth(save(tmp_path / f"depth{suffix}", values))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, np.array([[0.5, 0, 0], [0, 0, 2.25]], np.float32))


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint32, np.int64])
def test_whole_numbers_of_other_widths(kind: type, tmp_path: Path) -> None:
    small: NDArray[Any] = np.array([[0, 700], [1, 1200]], kind)
    read = read_depth(save(tmp_path / "depth.npy", small))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, small)
    if kind is not np.int16:
        large = read_depth(save(tmp_path / "depth.npy", small * 1000))
        assert large.dtype == np.float32
        np.testing.assert_array_equal(large, small * 1000)
    if np.iinfo(kind).min < 0:
        np.testing.assert_array_equal(read_depth(save(tmp_path / "depth.npy", small - 1)) == 0, [[1, 0], [1, 0]])


def test_an_array_may_have_one_channel(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_depth(save(tmp_path / "depth.npy", depth(1)[..., None])), depth(1))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("d.png", np.full((9, 9), 7, np.uint8), "has 8 bits per pixel, too few for depth"),
        ("d.jpg", np.full((9, 9), 7, np.uint8), "has 8 bits per pixel, too few for depth"),
        ("d.npy", np.full((9, 9), 7, np.uint8), "has 8 bits per pixel"),
        ("d.npy", np.ones((9, 9), np.bool_), "has 8 bits per pixel"),
        ("d.png", np.full((9, 9, 3), 7, np.uint8), "3 channels, but depth has one: it is a grey picture of depth"),
        ("d.png", colour(1), "has 3 channels, but depth has one: either depth was coloured for viewing, or the colour"),
        ("d.jpg", colour(1), "has 3 channels, but depth has one: either depth was coloured for viewing"),
        ("d.npy", colour(1), "has 3 channels, but depth has one: either depth was coloured"),
        ("d.png", np.dstack([colour(1), colour(2)[..., :1]]), "has 4 channels, but depth has one"),
    ],
)
def test_depth_for_viewing_is_refused_with_the_cause(
    name: str, values: NDArray[Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(WrongKindError, match=words) as caught:
        read_depth(save(tmp_path / name, values))
    assert str(tmp_path / name) in caught.value.message
    assert "as the camera gives it" in str(caught.value.hint)


@pytest.mark.parametrize("values", [np.zeros((2, 3, 4, 5)), np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2), complex)])
def test_arrays_that_are_no_depth(values: NDArray[Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d\.npy"):
        read_depth(save(tmp_path / "d.npy", values))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([{1: 2}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"d\.npy: 'd' holds Python objects, which are never unpickled"):
        read_depth(tmp_path / "d.npy")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
def test_colour_of_every_mode(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), RED if mode not in ("L", "LA", "1") else "white").convert(mode)
    image.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    (path,) = tmp_path.iterdir()
    read = read_colour(path)
    assert read.shape == (2, 4, 3)
    assert read.dtype == np.uint8
    assert (read == (RED if mode not in ("L", "LA", "1") else 255)).all()
    assert not picture_facts(path).deep


def test_transparent_colour_lies_over_white(tmp_path: Path) -> None:
    values = np.zeros((2, 2, 4), np.uint8)
    values[..., 0], values[0, :, 3] = 200, 255
    assert read_colour(save(tmp_path / "a.png", values)).tolist() == [[[200, 0, 0]] * 2, [[255, 255, 255]] * 2]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    assert read_colour(tmp_path / "p.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_16_bit_colour_keeps_its_high_byte(tmp_path: Path) -> None:
    # A PNG of 16 bits per channel, which Pillow cannot write: width 2, height 1.
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pixels = struct.pack(">6H", 0xFFFF, 0x1234, 0, 0x0080, 0x8000, 0xABCD)
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" + pixels))
        + chunk(b"IEND", b"")
    )
    assert picture_facts(tmp_path / "deep.png").deep
    assert read_colour(tmp_path / "deep.png").tolist() == [[[0xFF, 0x12, 0], [0, 0x80, 0xAB]]]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_colour_is_turned_upright(orientation: int, tmp_path: Path) -> None:
    values = colour(3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    turned = np.rot90(values, {1: 0, 3: 2, 6: 3, 8: 1}[orientation])
    np.testing.assert_array_equal(read_colour(tmp_path / "a.png"), turned)
    assert picture_facts(tmp_path / "a.png") == (turned.shape[1::-1], orientation != 1, False)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_16_bits_is_scaled_by_their_range(suffix: str, tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]], np.uint16)
    path = save(tmp_path / f"infrared{suffix}", values)
    assert read_colour(path).tolist() == [[[0] * 3, [0] * 3, [1] * 3], [[0x12] * 3, [255] * 3, [255] * 3]]
    assert picture_facts(path).deep
    assert not read_colour(save(path, np.zeros((2, 3), np.uint16))).any()  # the lens cap is on


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a.png", depth(1), "nowhere exceeds 1198: it looks like depth in the colour picture's place"),
        ("a.tif", np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3), "floating-point numbers, and nothing says"),
        ("a.tif", np.array([[0, 70000]], np.int32), "whole numbers outside 0..65535"),
        ("a.tif", np.array([[-1, 60000]], np.int32), "whole numbers outside 0..65535"),
    ],
)
def test_numbers_of_which_none_is_white_are_no_colour(
    name: str, values: NDArray[Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_colour(save(tmp_path / name, values))
    assert isinstance(caught.value, WrongKindError) == ("looks like" in words)


def test_what_is_not_a_file_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {"folder": "it is a folder", "empty": "the file is empty", "link": "leads nowhere", "pipe": "not a file"}
    for name, reason in reasons.items():
        for read in (read_colour, read_depth, picture_facts):
            with pytest.raises(DataError, match=rf"{name}\.png.*{reason}"):
                read(tmp_path / f"{name}.png")


@pytest.mark.parametrize("read", [read_colour, read_depth])
def test_what_is_no_picture_is_one_sentence(read: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", colour(1) if read is read_colour else depth(1))
    content = path.read_bytes()
    for spoilt in (b"", b"text", content[:50], content[:-40]):
        path.write_bytes(spoilt)
        with pytest.raises(DataError, match=r"a\.png: not a readable picture") as caught:
            read(path)
        assert not isinstance(caught.value, WrongKindError)
        assert "\n" not in caught.value.message
    path.unlink()
    with pytest.raises(DataError, match=r"a\.png: the file is missing"):
        read(path)
    Image.new("L", (2**14, 2**13)).save(path)
    with pytest.raises(DataError, match=r"it declares 16384 x 8192 pixels|exceeds limit"):
        read(path)


def test_saturated_depth_is_missing(tmp_path: Path) -> None:
    values = depth(1)
    values[0] = np.iinfo(np.uint16).max
    read = read_depth(save(tmp_path / "sky.png", values))
    assert not read[0].any()
    np.testing.assert_array_equal(read[1:], values[1:])
