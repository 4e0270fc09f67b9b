"""Digits as two modalities: golden small images, agreement with SciPy, and the whole of MNIST where it is at hand."""

import gzip
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.datasets import load_digits

from pipeline.datasets.digits import NAMES, add_noise, build, halves, parse_idx, rotate, shard_name
from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Modality, Shard

images = st.integers(1, 9).flatmap(
    lambda size: hnp.arrays(np.float32, (3, size, size), elements=st.floats(0, 1, width=32))
)


def idx(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


# --- images ----------------------------------------------------------------------------------------------------------


def test_halves_of_a_known_image() -> None:
    left, right = halves(np.array([[[1, 2, 3, 4], [5, 6, 7, 8]], [[9, 8, 7, 6], [5, 4, 3, 2]]], np.float32))
    np.testing.assert_array_equal(left, [[1, 2, 5, 6], [9, 8, 5, 4]])
    np.testing.assert_array_equal(right, [[3, 4, 7, 8], [7, 6, 3, 2]])


@given(images)
def test_the_halves_are_the_whole(pixels: np.ndarray) -> None:
    left, right = (half.reshape(3, pixels.shape[1], -1) for half in halves(pixels))
    np.testing.assert_array_equal(np.concatenate([left, right], axis=2), pixels)


def test_half_a_pixel_between_two_is_their_mean() -> None:
    # 45 degrees about the centre of a 3 x 3 cross: each corner reaches out to the arm's tip and beyond
    image = np.array([[[0, 1, 0], [0, 0.5, 0], [0, 0, 0]]], np.float32)
    turned = rotate(image, np.array([45.0]))[0]
    assert turned[1, 1] == 0.5
    # the tip at distance 1 comes to the upper left; (0, 0) looks at the place sqrt(2) above the centre
    assert turned[0, 0] == pytest.approx(1 - (np.sqrt(2) - 1), abs=1e-6)
    assert turned[2, 2] == pytest.approx(0, abs=1e-6)


@given(images, st.sampled_from([-180, -90, 0, 90, 180]))
def test_right_angles_move_pixels(pixels: np.ndarray, angle: int) -> None:
    turned = rotate(pixels, np.full(3, float(angle)))
    np.testing.assert_allclose(turned, np.rot90(pixels, angle // 90, axes=(1, 2)), atol=1e-6)


@given(images, hnp.arrays(np.float64, 3, elements=st.floats(-180, 180)))
def test_rotation_equals_scipys(pixels: np.ndarray, angles: np.ndarray) -> None:
    turned = rotate(pixels, angles)
    assert turned.dtype == np.float32
    assert turned.min() >= 0
    assert turned.max() <= 1
    for image, angle, actual in zip(pixels, angles, turned, strict=True):
        expected = ndimage.rotate(image.astype(float), angle, reshape=False, order=1, mode="grid-constant")
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@given(images, st.floats(0, 3), st.integers(0, 10))
def test_noise_stays_in_range_and_follows_its_seed(pixels: np.ndarray, sigma: float, seed: int) -> None:
    noisy = add_noise(pixels, sigma, np.random.default_rng(seed))
    assert noisy.dtype == np.float32
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    np.testing.assert_array_equal(noisy, add_noise(pixels, sigma, np.random.default_rng(seed)))
    np.testing.assert_array_equal(add_noise(pixels, 0, np.random.default_rng(seed)), pixels)


def test_noise_has_its_deviation() -> None:
    noise = add_noise(np.full((100, 28, 28), 0.5, np.float32), 0.1, np.random.default_rng(0)) - 0.5
    assert noise.mean() == pytest.approx(0, abs=0.002)
    assert noise.std() == pytest.approx(0.1, rel=0.01)


# --- idx files -------------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)))
def test_idx_is_read_back(values: np.ndarray) -> None:
    np.testing.assert_array_equal(parse_idx(idx(values), values.ndim, "a"), values)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an idx file"),
        (b"<html></html>....", "not an idx file"),
        (idx(np.zeros(5)), "not an idx file"),
        (b"\0\0\x0d\3" + idx(np.zeros((2, 3, 4)))[4:], "not an idx file"),
        (idx(np.zeros((2, 3, 4)))[:-1], "holds 23 values, but its header declares 24"),
        (idx(np.zeros((2, 3, 4))) + b"\0", "holds 25 values"),
        (b"\0\0\10\3" + b"\xff" * 12, "holds 0 values"),
    ],
)
def test_a_bad_idx_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parse_idx(content, 3, "train-images")
    assert caught.value.message.startswith("train-images: ")


# --- names and settings ----------------------------------------------------------------------------------------------


def test_names() -> None:
    assert shard_name("hm-mnist", 30, 0.1, 7) == "hm-mnist"
    assert shard_name("nm-mnist") == shard_name("nm-mnist", 45, 0.5, 0) == "nm-mnist-r45-n0.5"
    assert shard_name("nm-digits", 22.5, 0, 1) == "nm-digits-r22.5-n0-s1"
    assert shard_name("nm-digits", 45.0000001) != shard_name("nm-digits", 45)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("mnist", {}, "no data set 'mnist'"),
        ("nm-mnist", {"rotation": -1}, "rotation"),
        ("nm-mnist", {"rotation": 181}, "rotation"),
        ("nm-mnist", {"rotation": float("nan")}, "rotation"),
        ("nm-mnist", {"noise": -0.1}, "noise"),
        ("nm-mnist", {"noise": float("inf")}, "noise"),
        ("nm-mnist", {"noise": float("nan")}, "noise"),
        ("nm-mnist", {"seed": -1}, "seed"),
    ],
)
def test_settings_that_mean_nothing(name: str, settings: dict[str, float], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        build(name, tmp_path, tmp_path, **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# --- the bundled digits ----------------------------------------------------------------------------------------------


def test_hm_digits_are_the_bundled_images_cut_in_two(tmp_path: Path) -> None:
    path = build("hm-digits", tmp_path / "shards", tmp_path / "raw")
    assert path == tmp_path / "shards" / "hm-digits.h5"
    assert not (tmp_path / "raw").exists()
    shard = Shard.open(path)
    shard.verify()
    assert shard.dataset == "hm-digits"
    assert shard.classes == tuple("0123456789")
    assert shard.modalities == (Modality("x", 32, "bernoulli"), Modality("w", 32, "bernoulli"))
    bunch = load_digits()
    seen = []
    for part in (shard.train, shard.test):
        indices = [int(name.removeprefix(f"{part.name}-")) for name in part.ids.tolist()]
        seen += indices
        x, w = (part.features(name).reshape(-1, 8, 4) for name in "xw")
        np.testing.assert_array_equal(np.concatenate([x, w], axis=2) * 16, bunch.images[indices])
        np.testing.assert_array_equal(part.labels, bunch.target[indices])
    assert sorted(seen) == list(range(1797))
    assert shard.test.rows == 360
    share = np.bincount(shard.test.labels) / np.bincount(bunch.target)
    assert share.min() > 0.19
    assert share.max() < 0.21
    assert shard.provenance["settings"] == {"name": "hm-digits"}
    assert {"numpy", "scikit-learn", "mmssl"} <= shard.provenance["versions"].keys()


def test_nm_digits_pair_one_digit_turned_and_noisy(tmp_path: Path) -> None:
    whole = Shard.open(build("hm-digits", tmp_path, tmp_path))
    still = Shard.open(build("nm-digits", tmp_path, tmp_path, rotation=0, noise=0))
    shard = Shard.open(build("nm-digits", tmp_path, tmp_path, rotation=30, noise=0.2))
    assert shard.dataset == "nm-digits-r30-n0.2"
    assert shard.provenance["settings"] == {"name": "nm-digits", "rotation": 30.0, "noise": 0.2, "seed": 0}
    for part in ("train", "test"):
        plain = getattr(whole, part)
        source = np.concatenate([plain.features(name).reshape(-1, 8, 4) for name in "xw"], axis=2).reshape(-1, 64)
        for name in "xw":
            np.testing.assert_allclose(getattr(still, part).features(name), source, atol=1e-6)
        derived = getattr(shard, part)
        assert derived.ids.tolist() == plain.ids.tolist()
        np.testing.assert_array_equal(derived.labels, plain.labels)
        residual = derived.features("w") - source
        inside = (source > 0.4) & (source < 0.6)  # two deviations from being clipped, or more
        assert residual[inside].std() == pytest.approx(0.2, rel=0.1)
        # Each x is its source turned by one angle within the limits, and the angles fill them.
        angles = np.arange(-30, 31, 1.0)
        nearest = []
        for image, turned in zip(source[:60], derived.features("x")[:60], strict=True):
            candidates = rotate(np.broadcast_to(image.reshape(8, 8), (len(angles), 8, 8)), angles).reshape(-1, 64)
            distances = np.abs(candidates - turned).max(axis=1)
            nearest.append(angles[distances.argmin()])
            assert distances.min() < 0.06
        assert min(nearest) < -20
        assert max(nearest) > 20


def test_pairs_are_drawn_once_from_the_seed(tmp_path: Path) -> None:
    first, again = (Shard.open(build("nm-digits", tmp_path / folder, tmp_path)) for folder in "ab")
    other = Shard.open(build("nm-digits", tmp_path, tmp_path, seed=1))
    assert first.path.read_bytes() == again.path.read_bytes()
    assert other.path.name == "nm-digits-r45-n0.5-s1.h5"
    assert (first.train.features("x") != other.train.features("x")).any()
    assert (first.train.features("w") != other.train.features("w")).any()


def test_what_is_there_is_kept_if_it_is_right(tmp_path: Path) -> None:
    path = build("hm-digits", tmp_path, tmp_path)
    written = path.stat().st_mtime_ns
    assert build("hm-digits", tmp_path, tmp_path) == path
    assert path.stat().st_mtime_ns == written
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        build("hm-digits", tmp_path, tmp_path)
    shutil.copy(build("nm-digits", tmp_path, tmp_path), path)
    with pytest.raises(DataError, match=r"holds the data set nm-digits-r45-n0\.5, not hm-digits"):
        build("hm-digits", tmp_path, tmp_path)


# --- MNIST -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mnist(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not (real_data / "mnist").is_dir():
        pytest.skip(f"MNIST is not in {real_data}")
    monkeypatch.setenv("MMSSL_DATA", str(real_data))
    return real_data / "mnist"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("mnist")])
def test_the_whole_of_mnist(name: str, mnist: Path, tmp_path: Path) -> None:
    started = time.process_time()
    shard = Shard.open(build(name, tmp_path / "shards", tmp_path / "raw"))
    assert time.process_time() - started < 60
    assert not (tmp_path / "raw").exists()
    assert (shard.train.rows, shard.test.rows) == (60_000, 10_000)
    width = 392 if name == "hm-mnist" else 784
    assert shard.modalities == (Modality("x", width, "bernoulli"), Modality("w", width, "bernoulli"))
    assert shard.train.ids[[0, -1]].tolist() == ["train-00000", "train-59999"]
    assert shard.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert shard.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = np.frombuffer(gzip.decompress((mnist / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    source = pixels.reshape(-1, 28, 28).astype(np.float32) / 255
    if name == "hm-mnist":
        np.testing.assert_array_equal(shard.test.features("x"), source[:, :, :14].reshape(-1, 392))
        np.testing.assert_array_equal(shard.test.features("w"), source[:, :, 14:].reshape(-1, 392))
    else:  # turning keeps the ink; noise adds to dark pixels and takes from bright ones
        ink = shard.test.features("x").sum(axis=1) / source.sum(axis=(1, 2))
        assert np.abs(ink - 1).mean() < 0.01
        residual = shard.test.features("w") - source.reshape(-1, 784)
        assert (residual[source.reshape(-1, 784) == 0] >= 0).all()
        assert (residual[source.reshape(-1, 784) == 1] <= 0).all()
        assert residual[source.reshape(-1, 784) == 0].mean() == pytest.approx(0.5 * (2 * np.pi) ** -0.5, rel=0.03)


def test_without_mnist_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(DataError, match=r"cannot get train-images-idx3-ubyte\.gz: tried https://ossci") as caught:
        build("hm-mnist", tmp_path / "shards", tmp_path / "raw")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert "MMSSL_DATA" in caught.value.hint
    assert not (tmp_path / "shards").exists()


def test_a_damaged_mnist_is_named(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "mnist" / "train-images-idx3-ubyte.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(idx(np.zeros((2, 28, 28)))))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: has .* bytes, not the 9,912,422"):
        build("nm-mnist", tmp_path / "shards", tmp_path / "raw")
