"""The encoder that is kept: the same features for a new picture, wherever its file lies, and what is refused."""

import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.features import split_modality
from pipeline.features.backbones import PAPERS, make_network, trunk
from pipeline.features.encoder import Encoder, encoder_path, locate
from pipeline.features.weights import Weights
from pipeline.images.store import ImageModality, ImageSettings, ImageStore
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.tensor_files import TensorFile, read_tensor_file, write_tensor_file
from pipeline.shards.shard import Shard
from tests.support.extraction import SETTINGS, extract
from tests.support.rgbd_frames import contents
from tests.support.small_shards import MakeShard
from tests.support.tiny_vgg import WIDTH

RGB = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
DEPTH = np.random.default_rng(1).integers(500, 1500, (50, 40), dtype=np.uint16)


def make_encoder(modality: ImageModality = "rgb", seed: int = 0, **images: Any) -> Encoder:
    network = make_network(PAPERS, Weights("random"), 3, seed, torch.device("cpu"))
    layers, width = trunk(PAPERS, network)
    return Encoder.of(layers, width, PAPERS, modality, ImageSettings(**({"size": 32} | images)))


# What it gives.


def frames_of(root: Path, modality: str) -> tuple[list[str], list[Path]]:
    """The store's ids, and the raw pictures of these frames."""
    store = ImageStore.open(root / "images" / "rgbd-32")
    folder = root / "raw" / "rgbd-dataset"
    kind = "crop" if modality == "rgb" else "depthcrop"
    places = {path.name.removesuffix(f"_{kind}.png"): path for path in folder.rglob(f"*_{kind}.png")}
    return list(store.ids), [places[name] for name in store.ids]


def test_the_pictures_of_a_shard_become_its_rows_wherever_the_encoder_lies(
    root: Path, prepared: Path, tmp_path: Path
) -> None:
    (path,) = extract(root, (3,), keep_encoder=True)
    shard = Shard.open(path)
    for name, modality in (("x", "rgb"), ("w", "depth")):
        place = locate(shard, name)
        assert place == root / "features" / "rgbd-32" / f"split-3-{modality}.encoder.safetensors"
        moved = tmp_path / "elsewhere" / f"{modality}.safetensors"
        moved.parent.mkdir(exist_ok=True)
        shutil.copyfile(place, moved)
        ids, pictures = frames_of(prepared, modality)
        found = Encoder.open(moved)(pictures)
        assert found.dtype == np.float32
        row = {sample: k for k, sample in enumerate(ids)}
        for part in (shard.train, shard.test):
            rows = [row[sample] for sample in part.ids.tolist()]
            np.testing.assert_allclose(found[rows], part.features(name), rtol=1e-4, atol=1e-5)


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a folder ü" / "encoder.safetensors"
    encoder = make_encoder("depth", depth_encoding="raw")
    encoder.save(path)
    again = Encoder.open(path)
    assert again.recipe == encoder.recipe
    assert again.width == encoder.width == WIDTH
    np.testing.assert_array_equal(again([DEPTH]), encoder([DEPTH]))
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    recipe = json.loads(json.dumps(again.recipe))
    assert len(recipe.pop("digest")) == 64
    assert recipe == {
        "modality": "depth",
        "backbone": "vgg16",
        "layer": "the first fully connected layer after its ReLU (classifier[0:2])",
        "width": WIDTH,
        "size": 32,
        "depth_encoding": "raw",
        "preparation": 1,
        "input": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": None},
    }
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_picture_may_be_a_file_an_image_or_an_array(tmp_path: Path) -> None:
    rgb, depth = make_encoder("rgb"), make_encoder("depth")
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    Image.fromarray(DEPTH).save(tmp_path / "depth.png")
    found = rgb([tmp_path / "rgb.png", str(tmp_path / "rgb.png"), Image.fromarray(RGB), RGB])
    np.testing.assert_allclose(found, np.repeat(rgb([RGB]), 4, axis=0), rtol=1e-4, atol=1e-6)
    holes = DEPTH.copy()
    holes[10:20, 5:9] = 0
    floats = np.where(holes == 0, np.nan, holes).astype(np.float64)
    found = depth([tmp_path / "depth.png", Image.fromarray(DEPTH), DEPTH, DEPTH.astype(np.float32), DEPTH[..., None]])
    np.testing.assert_allclose(found, np.repeat(depth([DEPTH]), 5, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(depth([holes]), depth([floats]))
    assert rgb([]).shape == (0, WIDTH)


def test_alone_or_among_others_a_picture_gives_the_same() -> None:
    encoder = make_encoder()
    pictures = [RGB[: 20 + k % 30] for k in range(70)]  # more than are encoded together
    together = encoder(pictures)
    np.testing.assert_allclose(together, np.concatenate([encoder([one]) for one in pictures]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("modality", "picture", "words"),
    [
        ("rgb", DEPTH, r"the given rgb picture: is uint16 \(50, 40\)"),
        ("rgb", Path("nowhere.png"), r"nowhere\.png: the file is missing"),
        ("depth", RGB, r"the given depth picture: has 3 channels, but depth has one"),
        ("depth", Image.fromarray(RGB), "the given depth picture: has 3 channels, .* coloured for viewing"),
    ],
)
def test_pictures_of_the_wrong_kind_are_one_sentence(modality: ImageModality, picture: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_encoder(modality)([picture])


@pytest.mark.parametrize("images", [np.zeros((2, 31, 31, 3), np.uint8), np.zeros((2, 32, 32, 3), np.float32), RGB])
def test_images_that_were_not_prepared(images: NDArray[Any]) -> None:
    with pytest.raises(DataError, match=r"prepared images are uint8 \[n, 32, 32, 3\], not"):
        make_encoder().prepared(images)


def test_surface_normals_cannot_be_had_of_a_picture_alone() -> None:
    encoder = make_encoder("depth", depth_encoding="normals")
    assert encoder.prepared(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, WIDTH)
    with pytest.raises(UsageError, match="surface normals need the crop's place"):
        encoder([DEPTH])


def test_a_feature_that_is_not_finite() -> None:
    encoder = make_encoder()
    with torch.no_grad():
        encoder._network.classifier[0].bias[2] = torch.inf
    with pytest.raises(DataError, match="gives a feature that is not finite"):
        encoder([RGB])


# Files that will not do.


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    make_encoder().save(path)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:20], b"", whole[:-50] + bytes([1]) + whole[-49:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"encoder\.safetensors is damaged") as caught:
            Encoder.open(path)
        assert "--keep-encoder" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"there is no .*none\.safetensors"):
        Encoder.open(tmp_path / "none.safetensors")


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_byte_that_changed_anywhere_is_noticed(place: float, flip: int, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    if not path.exists():
        make_encoder().save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= flip
    other = tmp_path / "other.safetensors"
    other.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.safetensors"):
        Encoder.open(other)


def changed(**recipe: object) -> Callable[[TensorFile], TensorFile]:
    return lambda file: TensorFile(file.tensors, file.values | {"recipe": file.values["recipe"] | recipe})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: TensorFile(file.tensors, file.values | {"encoder": 2}), r"by a newer version of mmssl"),
        (lambda file: TensorFile(file.tensors, {"steps": 3}), "is not an encoder"),
        (lambda file: TensorFile(file.tensors, file.values | {"recipe": 3}), "its recipe is not that of an encoder"),
        (changed(size=10**6), "recipe is not that of an encoder: size"),
        (changed(modality="lidar"), "recipe is not that of an encoder: modality"),
        (changed(digest="../x"), "recipe is not that of an encoder: digest"),
        (changed(path="/etc"), "recipe is not that of an encoder: path"),
        (changed(depth_encoding="jet"), "depth_encoding does not fit"),
        (changed(input={"mean": [0, 0, 0], "std": [0, 1, 1], "resize": None}), "not that of an encoder: input.std.0"),
        (changed(preparation=2), "prepared in another way"),
        (changed(backbone="resnet1000"), "is of the network resnet1000, which is not known"),
        (changed(backbone="resnet18"), "is not of a resnet18: conv1.weight is missing"),
        (changed(backbone="regnet_y_128gf"), "is not of a regnet_y_128gf: it has too few weights"),
        (changed(width=13), "gives 12 features, and its recipe says 13"),
        (changed(digest="0" * 64), "its weights are not those that its recipe names"),
        (lambda file: TensorFile({name: tensor.double() for name, tensor in file.tensors.items()}, file.values),
         "is missing, or of another type"),
        (lambda file: TensorFile(file.tensors | {"extra": torch.zeros(1)}, file.values), "it also has extra"),
    ],
)  # fmt: skip
def test_a_file_that_was_changed_is_refused(
    change: Callable[[TensorFile], TensorFile], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.safetensors"
    make_encoder().save(path)
    write_tensor_file(path, change(read_tensor_file(path)))
    with pytest.raises(DataError, match=rf"encoder\.safetensors:? .*{words}"):
        Encoder.open(path)


# Where it lies.


def test_what_locate_cannot_find_is_one_sentence_with_the_command(
    root: Path, make_shard: MakeShard, tmp_path: Path
) -> None:
    (path,) = extract(root, (3,))
    shard = Shard.open(path)
    command = (
        "mmssl extract --data rgbd --split 3 --size 32 --weights random --labelled 0.5 --epochs 3 --batch-size 4 "
        "--lr 0.001 --name rgbd-32 --keep-encoder"
    )
    with pytest.raises(DataError, match=r"rgbd-32-split-3\.h5: the encoder of x was not kept") as caught:
        locate(shard, "x")
    assert command in str(caught.value.hint)
    extract(root, (3,), keep_encoder=True)
    shard = Shard.open(path)
    assert locate(replace(shard, dataset="rgbd-32-validation"), "w") == locate(shard, "w")
    make_encoder(seed=5).save(locate(shard, "x"))
    with pytest.raises(DataError, match=r"split-3-rgb\.encoder\.safetensors: is not the encoder of x"):
        locate(shard, "x")
    locate(shard, "w").unlink()
    with pytest.raises(DataError, match=r"the encoder of w is not there: there is no .*split-3-depth") as caught:
        locate(shard, "w")
    assert command in str(caught.value.hint)
    with pytest.raises(DataError, match="there is no modality 'rgb', only x, w"):
        locate(shard, "rgb")
    with pytest.raises(DataError, match="x was not made of pictures by mmssl"):
        locate(make_shard(tmp_path / "vectors.h5"), "x")


def test_it_is_made_afterwards_and_changes_neither_features_nor_digest(
    root: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = extract(root, (3,))
    before = Shard.open(path)
    with pytest.raises(DataError):
        locate(before, "x")
    extract(root, (3,), keep_encoder=True)
    after = Shard.open(path)
    after.verify()
    assert (after.digest, after.provenance) == (before.digest, before.provenance)
    assert set(after.encoders) == {"x", "w"}
    features = contents(root / "features" / "rgbd-32")
    for name in ("split-3-rgb.h5", "split-3-depth.h5"):
        assert features[name] == undisturbed[f"features/rgbd-32/{name}"]
    # Nothing is left to do, whether or not the units are there.
    monkeypatch.setattr(split_modality, "make_network", lambda *_: pytest.fail("made again"))
    extract(root, (3,), keep_encoder=True)
    for place in (root / "features" / "rgbd-32").glob("*.h5"):
        place.unlink()
    extract(root, (3,), keep_encoder=True)
    extract(root, (3,))


def test_a_lost_or_damaged_encoder_is_made_again(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    extract(root, (3,), keep_encoder=True)
    whole = contents(root)
    folder = root / "features" / "rgbd-32"
    for place in folder.glob("*.h5"):
        place.unlink()
    encoder_path(folder, 3, "rgb").unlink()
    damaged = encoder_path(folder, 3, "depth")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    extract(root, (3,), keep_encoder=True)
    assert "depth.encoder.safetensors is damaged" in caplog.text
    assert contents(root) == whole


def test_a_network_that_gives_other_features_is_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(root, (3,))
    monkeypatch.setattr(split_modality, "seed_of", lambda *_: 77)
    with pytest.raises(DataError, match=r"split-3-rgb\.h5: the network, made again, gives other features") as caught:
        extract(root, (3,), keep_encoder=True)
    assert "move " in str(caught.value.hint)
    assert not list(root.rglob("*encoder*"))
    for place in (root / "features" / "rgbd-32").glob("*.h5"):
        place.unlink()
    with pytest.raises(
        DataError, match=r"split-3-rgb\.h5 holds other features than .*so its encoder is not the shard's"
    ):
        extract(root, (3,), keep_encoder=True)
    assert not Shard.open(root / "shards" / "rgbd-32-split-3.h5").encoders


def test_an_encoder_of_other_settings_is_not_replaced(root: Path) -> None:
    extract(root, (3,), keep_encoder=True)
    for place in (*(root / "features" / "rgbd-32").glob("*.h5"), root / "shards" / "rgbd-32-split-3.h5"):
        place.unlink()
    other = SETTINGS.model_copy(update={"epochs": 1})
    with pytest.raises(DataError, match=r"split-3-rgb\.encoder\.safetensors belongs to other settings"):
        extract(root, (3,), other, keep_encoder=True)


def test_the_units_of_a_dataclass_know_where_it_lies(tmp_path: Path) -> None:
    unit = split_modality.ExtractionTask(
        tmp_path, tmp_path / "split-3-rgb.h5", 3, "rgb", 3, (), np.zeros(0, np.int64), SETTINGS, Weights("random"),
        "cpu", {},
    )  # fmt: skip
    assert unit.encoder == tmp_path / "split-3-rgb.encoder.safetensors"
    assert replace(unit, split=None, path=tmp_path / "rgb.h5").encoder == tmp_path / "rgb.encoder.safetensors"
