"""Other networks than VGG16: which layer is taken, what it expects, their weights, and fine-tuning them."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.features import extract as extraction_stage
from pipeline.features.backbones import Backbone, InputRecipe, blank_trunk, known, make_network, trunk
from pipeline.features.encoder import Encoder, locate
from pipeline.features.extraction import features
from pipeline.features.fine_tuning import FeatureSettings, fine_tune
from pipeline.features.noise import SeededDepth
from pipeline.features.weights import Weights, load_weights
from pipeline.images.resize import Bytes
from pipeline.images.store import ImageSettings
from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.shards.shard import Shard
from tests.support.imported_pictures import import_pictures, picture

CPU = torch.device("cpu")
# One of each family: its width, and whether what it gives is never negative.
FAMILIES = {
    "alexnet": (4096, True),
    "convnext_tiny": (768, False),
    "densenet121": (1024, True),
    "efficientnet_b0": (1280, False),
    "efficientnet_v2_s": (1280, False),
    "maxvit_t": (512, False),
    "mobilenet_v2": (1280, True),
    "mobilenet_v3_small": (1024, False),
    "regnet_y_400mf": (440, True),
    "resnet18": (512, True),
    "resnet50": (2048, True),
    "resnext50_32x4d": (2048, True),
    "shufflenet_v2_x0_5": (1024, True),
    "swin_t": (768, False),
    "swin_v2_t": (768, False),
    "vgg11": (4096, True),
    "vgg16_bn": (4096, True),
    "vit_b_16": (768, False),
    "wide_resnet50_2": (2048, True),
}
QUICK = ("resnet18", "convnext_tiny")
OTHERS = ("densenet121", "efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5", "vit_b_16")


def images(count: int, size: int = 64, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layer_and_the_input_of_each_family(name: str) -> None:
    backbone = Backbone.named(name)
    width, nonnegative = FAMILIES[name]
    assert blank_trunk(backbone)[1] == width
    assert backbone.distribution == ("nonnegative" if nonnegative else "gaussian")
    assert backbone.layer.startswith("the first fully connected" if name.startswith("vgg") else "the input of the last")
    assert backbone.input.resize == (224 if name in ("vit_b_16", "maxvit_t") else None)
    assert Backbone.named(name) == backbone


def test_networks_are_known_by_torchvisions_names() -> None:
    names = known()
    assert set(FAMILIES) < set(names)
    assert not [name for name in names if "inception" in name or "googlenet" in name or "squeeze" in name]
    with pytest.raises(UsageError, match="--backbone resnet: there is no such network") as caught:
        Backbone.named("resnet")
    assert "resnet50" in str(caught.value.hint)
    assert Backbone.named("efficientnet_v2_l").input.mean == (0.5, 0.5, 0.5)
    assert Backbone.named("vit_h_14").input.resize == 518


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_what_each_family_gives(name: str, tmp_path: Path) -> None:
    backbone = Backbone.named(name)
    width, nonnegative = FAMILIES[name]
    before = torch.get_rng_state()
    network = make_network(backbone, Weights("random", backbone=name), 3, 0, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    pixels = images(2)
    given: list[Tensor] = []
    *_, (_, head) = network.named_modules()
    head.register_forward_hook(lambda _, args, __: given.append(args[0]))
    with torch.no_grad():
        network.eval()(backbone.input(torch.from_numpy(pixels)))
    layers, found = trunk(backbone, network)
    (rows,) = features(layers, backbone.input, [pixels], 2)
    assert rows.shape == (2, width)
    assert found == width
    assert np.isfinite(rows).all()
    assert (rows.min() >= 0) == nonnegative
    assert not np.array_equal(rows[0], rows[1])
    if not name.startswith("vgg"):
        np.testing.assert_allclose(rows, given[0].numpy(), rtol=1e-3, atol=1e-4)
    encoder = Encoder.of(layers, width, backbone, "rgb", ImageSettings(size=64))
    encoder.save(tmp_path / "encoder")
    np.testing.assert_allclose(Encoder.open(tmp_path / "encoder").prepared(pixels), rows, rtol=1e-4, atol=1e-5)


def test_images_are_scaled_to_what_a_network_needs() -> None:
    pixels = torch.from_numpy(images(2, 40))
    plain, scaled = InputRecipe()(pixels), InputRecipe(resize=80)(pixels)
    assert scaled.shape == (2, 3, 80, 80)
    assert scaled.mean().item() == pytest.approx(plain.mean().item(), abs=0.02)
    assert torch.equal(InputRecipe(resize=40)(pixels), plain)
    constant = torch.full((1, 40, 40, 3), 7, dtype=torch.uint8)
    assert InputRecipe(resize=33)(constant).std(dim=(2, 3)).max().item() < 1e-5
    other = InputRecipe(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8))
    assert other.unique().tolist() == pytest.approx([1.0], abs=1e-6)


# Fine-tuning.


def test_stochastic_depth_keeps_whole_rows_and_the_mean() -> None:
    layer = SeededDepth(0.3, torch.Generator().manual_seed(0))
    rows = layer(torch.ones(20_000, 2, 3))
    assert set(rows.flatten(1).std(dim=1).tolist()) == {0.0}
    assert rows.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(layer.eval()(rows), rows)


def test_fine_tuned_stopped_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    name = "efficientnet_b0"  # it has dropout, stochastic depth and batch normalisation
    backbone, labels = Backbone.named(name), np.array([0, 1, 2, 0, 1])
    settings = FeatureSettings(epochs=2, batch_size=2, learning_rate=1e-3)  # the last batch is one image

    def tuned(checkpoint: Path, stop_after: int | None = None) -> dict[str, Tensor]:
        left = iter(range(stop_after)) if stop_after is not None else None

        def stop() -> None:
            if left is not None and next(left, None) is None:
                raise Interrupted("stopped")

        network = make_network(backbone, Weights("random", backbone=name), 3, 0, CPU)
        fine_tune(network, images(5, 32), labels, settings, (None, "rgb"), checkpoint, {}, prepare=backbone.input,
                  stop=stop)  # fmt: skip
        return parameters(network)

    before = torch.get_rng_state()
    whole = tuned(tmp_path / "none")
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(Interrupted):
        tuned(tmp_path / "checkpoint", stop_after=3)
    assert equal(tuned(tmp_path / "checkpoint"), whole)
    start = parameters(make_network(backbone, Weights("random", backbone=name), 3, 0, CPU))
    moved = {key for key, value in whole.items() if not torch.equal(value, start[key])}
    assert len(moved) > len(whole) // 4  # with random weights some gradients vanish
    assert not [key for key in moved if "running" in key or key.endswith("num_batches_tracked")]


# Weights.


def test_weights_of_a_file_but_for_the_last_layer(tmp_path: Path) -> None:
    backbone = Backbone.named("resnet18")
    given = make_network(backbone, Weights("random", backbone="resnet18"), 7, 5, CPU)
    state = {name: tensor.contiguous() for name, tensor in given.state_dict().items()}
    less = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    for content in (state, less):
        save_file(content, tmp_path / "given.safetensors")
        network = make_network(backbone, Weights.named(str(tmp_path / "given.safetensors"), "resnet18"), 3, 0, CPU)
        assert all(
            torch.equal(tensor, state[name])
            for name, tensor in network.state_dict().items()
            if not name.startswith("fc")
        )
        assert network.get_submodule("fc").out_features == 3
    save_file({name: tensor for name, tensor in state.items() if name != "conv1.weight"}, tmp_path / "less.safetensors")
    with pytest.raises(DataError, match=r"less\.safetensors: is not of a resnet18: conv1\.weight is missing") as caught:
        make_network(backbone, Weights.named(str(tmp_path / "less.safetensors"), "resnet18"), 3, 0, CPU)
    assert "torchvision's resnet18" in str(caught.value.hint)


class OldNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.denselayer1 = nn.ModuleDict({"norm1": nn.BatchNorm2d(2), "conv2": nn.Conv2d(2, 2, 1)})
        self.block = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Dropout(), nn.Linear(3, 2))})


def test_files_with_the_names_of_older_versions_are_read(tmp_path: Path) -> None:
    given, network = OldNames(), OldNames()
    old = {"norm1.": "norm.1.", "conv2.": "conv.2.", "mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    state = {}
    for name, tensor in given.state_dict().items():
        for new, former in old.items():
            name = name.replace(new, former)
        state[name] = tensor
    torch.save(state, tmp_path / "old.pth")
    load_weights(network, tmp_path / "old.pth", "head", "network")
    assert equal(parameters(network), parameters(given))


def test_imagenet_weights_are_known_by_the_name_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights.named("imagenet", "resnet50")
    assert weights.identity == weights.file == "resnet50-11ad3fa6.pth"
    place = tmp_path / "resnet50" / "resnet50-11ad3fa6.pth"
    place.parent.mkdir()
    place.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"resnet50-11ad3fa6\.pth: has not the content that the checksum in its name"):
        weights.located(tmp_path)
    shared = tmp_path / "shared" / "mine"
    shared.mkdir(parents=True)
    name = f"mine-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    mine = Weights("imagenet", backbone="mine", file=name, url=f"https://example.org/{name}")
    (shared / name).write_bytes(b"weights")
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "shared"))
    assert mine.located(tmp_path).path == shared / name
    assert mine.located(tmp_path).identity == mine.identity


def test_imagenet_weights_are_downloaded_once_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = [b"other bytes", b"weights"]

    def download(_: object, __: str, output: str, ___: object) -> None:
        if not served:
            raise requests.ConnectionError
        Path(output).write_bytes(served.pop(0))

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    name = f"mine-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    mine = Weights("imagenet", backbone="mine", file=name, url=f"https://example.org/{name}")
    with pytest.raises(DataError, match="serves other bytes"):
        mine.located(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".pth"]
    assert mine.located(tmp_path).path == mine.located(tmp_path).path == tmp_path / "mine" / name
    (tmp_path / "mine" / name).unlink()
    with pytest.raises(DataError, match=rf"cannot get {name}: tried https://example.org/.* \(no connection") as caught:
        mine.located(tmp_path)
    assert "MMSSL_DATA" in str(caught.value.hint)


# All the way.


@pytest.mark.parametrize("name", QUICK)
def test_a_shard_of_other_features(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    import_pictures(tmp_path)
    (path,) = extraction_stage.extract(
        "mine", tmp_path, (), ImageSettings(), FeatureSettings(), weights="random", backbone=name, device="cpu"
    )
    shard = Shard.open(path)
    width, nonnegative = FAMILIES[name]
    assert {(m.width, m.distribution) for m in shard.modalities} == {
        (width, "nonnegative" if nonnegative else "gaussian")
    }
    assert shard.provenance["recipe"]["backbone"] == name
    assert shard.provenance["feature"] == f"{name}'s input of the last linear layer"
    assert set(shard.scaling) == (set() if nonnegative else {"rgb", "depth"})
    part = shard.train
    for modality in ("rgb", "depth"):
        rows, has = part.features(modality), part.has(modality)
        assert not rows[~has].any()
        if not nonnegative:
            np.testing.assert_allclose(rows[has].mean(axis=0), 0, atol=1e-4)
            np.testing.assert_allclose(rows[has].std(axis=0), 1, atol=1e-2)
        numbers = np.array([int(sample.split()[1]) for sample in part.ids])[has]
        given = Encoder.open(locate(shard, modality))([picture(tmp_path / "pictures", k, modality) for k in numbers])
        if not nonnegative:
            given = shard.scaling[modality](given)
        np.testing.assert_allclose(given, rows[has], rtol=1e-3, atol=1e-3)
