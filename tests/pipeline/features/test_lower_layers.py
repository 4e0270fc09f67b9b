"""`--tune fc1`: what the layers below the fully connected ones give is computed once, and nothing else changes."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.features.backbones import PAPERS, upper_layers
from pipeline.features.encoder import Encoder
from pipeline.features.fine_tuning import FeatureSettings, fine_tune
from pipeline.features.noise import seed_of
from pipeline.features.vgg import make_network
from pipeline.features.weights import Weights
from pipeline.images.store import ImageStore
from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Shard
from tests.support.extraction import SETTINGS, extract, fc1
from tests.support.rgbd_frames import contents
from tests.support.tiny_vgg import TinyVgg

ABOVE = SETTINGS.model_copy(update={"tune": "fc1"})
PLAIN = SETTINGS.model_copy(update={"epochs": 0})
ONCE = "once for all splits"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_file(TinyVgg().state_dict(), tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


def features_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """By id and modality, the features of all rows."""
    shard = Shard.open(path)
    return {
        f"{name} {m.name}": row
        for part in (shard.train, shard.test)
        for m in shard.modalities
        for name, row in zip(part.ids, part.features(m.name), strict=True)
    }


def test_it_is_fine_tuning_of_the_whole_with_the_lower_layers_kept(
    root: Path, weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    paths = extract(root, (0, 3), ABOVE, weights=weights)
    assert caplog.text.count(ONCE) == 2  # of rgb, and of depth
    store, shard = ImageStore.open(root / "images" / "rgbd-32"), Shard.open(paths[1])
    network = make_network(Weights.named(weights), 3, seed_of(0, 3), torch.device("cpu"))
    before = network.classifier[0].weight.clone()
    network.features.requires_grad_(False)
    chosen = set(shard.train.ids[shard.train.labelled].tolist())
    ordered = [name for name in store.ids if name in chosen]
    labels = np.array([shard.classes.index(name.rsplit("_", 3)[0]) for name in ordered])
    fine_tune(network, store.images("depth", ordered), labels, SETTINGS, (3, "depth"), root / "none", {})
    assert not torch.equal(network.classifier[0].weight, before)
    found, rows = features_of(paths[1]), np.concatenate(list(fc1(network, store.blocks("depth"), 4)))
    for name, row in zip(store.ids, rows, strict=True):
        if f"{name} w" in found:
            np.testing.assert_allclose(found[f"{name} w"], row, rtol=1e-4, atol=1e-6)
    assert Shard.open(paths[0]).provenance["recipe"]["settings"]["tune"] == "fc1"


def test_a_damaged_file_is_made_again_and_a_whole_one_is_kept(
    root: Path, weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    extract(root, (0, 3), ABOVE, weights=weights)
    expected = contents(root)
    shared, features = root / "features/rgbd-32/rgb-lower.h5", root / "features/rgbd-32/split-3-rgb.h5"
    for damage in (False, True):
        if damage:
            shared.write_bytes(shared.read_bytes()[:-500] + bytes(500))
        caplog.clear()
        (root / "shards/rgbd-32-split-3.h5").unlink()
        features.unlink()
        extract(root, (3,), ABOVE, weights=weights)
        assert caplog.text.count(ONCE) == damage
        assert contents(root) == expected


def test_splits_of_which_nothing_is_tuned_share_it_too(root: Path, weights: str) -> None:
    alone = [*extract(root, (0,), PLAIN, weights=weights), *extract(root, (3,), PLAIN, weights=weights)]
    assert not (root / "features/rgbd-32/rgb-lower.h5").exists()
    together = extract(root, (0, 3), PLAIN, weights=weights, name="together")
    assert (root / "features/together/rgb-lower.h5").exists()
    for one, other in zip(alone, together, strict=True):
        expected = features_of(one)
        for name, row in features_of(other).items():
            np.testing.assert_allclose(row, expected[name], rtol=1e-5, atol=1e-6)


def test_random_layers_are_a_splits_own(root: Path) -> None:
    extract(root, (0, 3), ABOVE)
    names = {path.name for path in (root / "features/rgbd-32").iterdir()}
    assert {"split-0-rgb-lower.h5", "split-3-rgb-lower.h5"} <= names
    assert "rgb-lower.h5" not in names


def test_its_encoder_gives_its_features(root: Path, weights: str) -> None:
    (path,) = extract(root, (3,), ABOVE, weights=weights, keep_encoder=True)
    store, found = ImageStore.open(root / "images" / "rgbd-32"), features_of(path)
    encoder = Encoder.open(root / "features/rgbd-32/split-3-rgb.encoder.safetensors")
    rows = encoder.prepared(store.images("rgb", store.ids))
    for name, row in zip(store.ids, rows, strict=True):
        if f"{name} x" in found:
            np.testing.assert_allclose(found[f"{name} x"], row, rtol=1e-4, atol=1e-6)


def test_an_encoder_for_features_that_exist_needs_no_lower_layers(
    root: Path, weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plain = PLAIN.model_copy(update={"tune": "fc1"})
    extract(root, (3,), plain, weights=weights)
    (root / "features/rgbd-32/rgb-lower.h5").unlink()
    caplog.clear()
    extract(root, (3,), plain, weights=weights, keep_encoder=True)
    assert (root / "features/rgbd-32/split-3-rgb.encoder.safetensors").exists()
    assert ONCE not in caplog.text


def test_what_has_no_upper_layers_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="--tune fc1: resnet18 has no layers between"):
        extract(root, (0,), ABOVE, backbone="resnet18")


def test_recipes_of_the_papers_way_stay_as_they_were() -> None:
    assert "tune" not in FeatureSettings().identity()
    assert FeatureSettings(tune="fc1").identity()["tune"] == "fc1"
    assert PAPERS.has_upper_layers
    assert upper_layers(TinyVgg())[0].in_features == 54
