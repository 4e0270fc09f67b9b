"""An encoder as ONNX prepares pictures as the encoder does, and gives the same features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from pipeline.datasets.pictures import read_depth
from pipeline.features.backbones import PAPERS, Backbone, InputRecipe, make_network, trunk
from pipeline.features.encoder import Encoder
from pipeline.features.encoder_graph import MatrixPooling, PictureNetwork
from pipeline.features.encoder_onnx import write_encoder_onnx
from pipeline.features.weights import Weights
from pipeline.images.depth import encode_depth, fill_holes
from pipeline.images.resize import resize_rgb
from pipeline.images.store import ImageModality, ImageSettings
from pipeline.runtime.errors import UsageError
from tests.support.without_mmssl import needs_onnx

SIDE = st.integers(1, 90)
RUNNER = Path(__file__).parents[3] / "pipeline" / "features" / "run_onnx_pictures.py"


def encoder(modality: ImageModality, backbone: Backbone = PAPERS, **images: Any) -> Encoder:
    network = make_network(backbone, Weights("random"), 3, 0, torch.device("cpu"))
    layers, width = trunk(backbone, network)
    return Encoder.of(layers, width, backbone, modality, ImageSettings(**({"size": 32} | images)))


@given(SIDE, SIDE, st.integers(32, 70), st.integers(0, 2**31))
def test_pictures_become_the_same_bytes_but_for_the_order_of_rows_and_columns(
    height: int, width: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    network = PictureNetwork(encoder("rgb", size=size))
    found = network._colour(torch.from_numpy(colour)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, resize_rgb(colour, size), atol=1)  # Pillow turns the order round at times
    for encoding in ("jet", "raw"):
        network = PictureNetwork(encoder("depth", size=size, depth_encoding=encoding))
        whole = rng.integers(1, 2**16, (height, width)).astype(np.uint16)
        depths: list[Any] = [whole, whole.astype(np.float32) / 1000, np.full_like(whole, 5)]
        for depth in depths:
            given_depth = torch.from_numpy(depth.astype(np.float32))[None]
            found = network._depth(given_depth)[0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(found, encode_depth(depth, encoding, size=size))


@pytest.mark.parametrize("sides", [(480, 640), (640, 480), (90, 120), (148, 148), (1, 7), (73, 211)])
def test_usual_colour_pictures_become_the_same_bytes(sides: tuple[int, int]) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8)
    found = PictureNetwork(encoder("rgb", size=148))._colour(torch.from_numpy(colour)[None])[0].permute(1, 2, 0)
    np.testing.assert_array_equal(found.numpy(), resize_rgb(colour, 148))


@pytest.mark.parametrize("output", [1, 3, 7, (2, 5), (None, 4)])
@pytest.mark.parametrize("side", [4, 7, 9])
def test_pooling_by_matrices_is_adaptive_pooling(output: Any, side: int) -> None:
    x = torch.rand(2, 3, side, side + 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(MatrixPooling(output)(x), nn.AdaptiveAvgPool2d(output)(x))


@pytest.mark.parametrize(
    ("modality", "resize", "images"),
    [
        ("rgb", None, {}),
        ("rgb", 48, {}),
        pytest.param("depth", 33, {}, marks=pytest.mark.slow),
        pytest.param("depth", None, {"depth_encoding": "raw"}, marks=pytest.mark.slow),
    ],
)
def test_the_file_gives_the_encoders_features(
    modality: ImageModality, resize: int | None, images: dict[str, Any], tmp_path: Path
) -> None:
    needs_onnx()
    made = encoder(modality, Backbone(PAPERS.name, PAPERS.layer, "nonnegative", InputRecipe(resize=resize)), **images)
    made.save(tmp_path / "encoder.safetensors")
    usual, written = write_encoder_onnx(tmp_path / "encoder.safetensors", tmp_path / "encoder.onnx")
    assert usual.std() > 0
    np.testing.assert_allclose(written, usual, rtol=1e-4, atol=1e-5)
    assert str(tmp_path).encode() not in (tmp_path / "encoder.onnx").read_bytes()


def test_surface_normals_are_refused(tmp_path: Path) -> None:
    needs_onnx()
    encoder("depth", depth_encoding="normals").save(tmp_path / "encoder.safetensors")
    with pytest.raises(UsageError, match="takes surface normals"):
        write_encoder_onnx(tmp_path / "encoder.safetensors", tmp_path / "encoder.onnx")
    assert not (tmp_path / "encoder.onnx").exists()


@pytest.fixture(scope="module")
def runner() -> dict[str, Any]:
    """The runner's own functions; the rest of its file runs a model."""
    needs_onnx()
    source = RUNNER.read_text(encoding="utf-8").partition('model = load("model.onnx")')[0]
    values: dict[str, Any] = {"__name__": "runner"}
    exec(compile(source, str(RUNNER), "exec"), values)
    return values


@pytest.fixture(scope="module")
def fill(runner: dict[str, Any]) -> Any:
    return runner["fill"]


def test_the_runner_takes_saturated_depth_for_missing_as_mmssl_does(runner: dict[str, Any], tmp_path: Path) -> None:
    depth = np.tile(np.array([1000, 1500, 65535, 0], np.uint16), (6, 3))
    Image.fromarray(depth).save(tmp_path / "depth.png")
    expected = fill_holes(read_depth(tmp_path / "depth.png"))
    np.testing.assert_array_equal(runner["read_depth"](str(tmp_path / "depth.png")), expected)
    assert expected.max() == 1500


@given(SIDE, SIDE, st.integers(0, 2**31), st.floats(0, 1))
def test_the_runner_fills_holes_as_mmssl_does(fill: Any, height: int, width: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.integers(1, 2**16, (height, width)).astype(np.uint16)
    depth[rng.random(depth.shape) < share] = 0
    if depth.any():
        np.testing.assert_array_equal(fill(depth.astype(np.float32)), fill_holes(depth))
