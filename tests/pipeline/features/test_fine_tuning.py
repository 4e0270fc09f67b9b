"""VGG16's weights, its fine-tuning, and its first fully connected layer."""

import hashlib
import logging
import os
import pickle
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VGG, vgg16  # type: ignore[import-untyped]

from commands.settings_from_options import settings_of
from pipeline.features import vgg
from pipeline.features.fine_tuning import FeatureSettings, fine_tune
from pipeline.features.noise import SeededDropout, seed_of
from pipeline.features.vgg import make_network, normalise
from pipeline.features.weights import Weights
from pipeline.images.resize import Bytes
from pipeline.runtime.errors import DataError, Interrupted, StorageError, TrainingError, UsageError
from pipeline.runtime.tensor_files import TensorFile, read_tensor_file, write_tensor_file
from pipeline.shards.schema import Features
from tests.support.extraction import fc1
from tests.support.tiny_vgg import WIDTH, TinyVgg

CPU = torch.device("cpu")
SETTINGS = FeatureSettings(epochs=4, batch_size=4, learning_rate=1e-3)
Parameters = dict[str, Tensor]
RECIPE = {"images": "a", "split": 0}


@pytest.fixture
def network() -> VGG:
    return make_network(Weights("random"), 3, 0, CPU)


def images(count: int = 10, size: int = 32, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def parameters(network: VGG) -> Parameters:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def equal(a: Parameters, b: Parameters) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Weights.


def test_a_network_is_a_function_of_its_seed_and_leaves_the_global_random_state_alone(
    network: VGG, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    same, other = (make_network(Weights("random"), 3, seed, CPU) for seed in (0, 1))
    assert equal(parameters(network), parameters(same))
    assert not equal(parameters(network), parameters(other))
    fine_tune(same, images(), LABELS, SETTINGS, (0, "rgb"), tmp_path / "x", RECIPE)
    list(fc1(same, [images()], 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert network.classifier[6].out_features == 3
    assert not any(isinstance(module, nn.Dropout) for module in network.modules())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_file_are_taken_but_for_the_last_layer(tmp_path: Path, suffix: str) -> None:
    given = TinyVgg().state_dict()
    path = tmp_path / f"given{suffix}"
    torch.save(given, path) if suffix == ".pth" else save_file(given, path)
    weights = Weights.named(str(path))
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.located(tmp_path) == weights
    network = make_network(weights, 7, 0, CPU)
    for name, tensor in given.items():
        if not name.startswith("classifier.6"):
            assert torch.equal(network.state_dict()[name], tensor)
    assert network.classifier[6].weight.shape == (7, 8)
    assert network.classifier[6].weight.std() < 0.02


def changed(name: str, value: Tensor | None) -> dict[str, Tensor]:
    state = TinyVgg().state_dict()
    if value is None:
        del state[name]
    else:
        state[name] = value
    return state


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            changed("features.0.weight", torch.zeros(6, 3, 3, 3)),
            r"features\.0\.weight has the shape \(6, 3, 3, 3\), not \(6",
        ),
        (changed("classifier.3.bias", None), r"classifier\.3\.bias is missing"),
        (
            changed("classifier.3.bias", torch.full((8,), torch.nan)),
            r"classifier\.3\.bias holds a value that is not fin",
        ),
        (changed("layer4.0.conv1.weight", torch.zeros(3)), r"it also has layer4\.0\.conv1\.weight"),
        ([1, 2, 3], "holds no state dict of tensors"),
    ],
)
def test_weights_that_will_not_do_are_one_sentence(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=rf"bad\.pth: .*{words}"):
        make_network(Weights.named(str(tmp_path / "bad.pth")), 3, 0, CPU)


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch evil-was-here",)


def test_nothing_is_unpickled_from_a_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("evil.pth", "cut.safetensors", "text.pth"):
        with pytest.raises(DataError, match="no weights that can be read safely"):
            make_network(Weights.named(name), 3, 0, CPU)
    assert not (tmp_path / "evil-was-here").exists()


def test_imagenet_weights_of_the_wrong_bytes_are_refused(tmp_path: Path) -> None:
    weights = Weights.named("imagenet")
    assert str(weights.sha256).startswith("397923af")
    path = tmp_path / "vgg16" / "vgg16-397923af.pth"
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"vgg16-397923af\.pth: has 14 bytes, not the 553,433,881"):
        weights.located(tmp_path)
    with pytest.raises(DataError, match="there is no file of weights") as caught:
        Weights.named("resnet")
    assert "imagenet" in str(caught.value.hint)


def test_random_weights_are_told_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Weights.named("random").located(tmp_path) == Weights("random")
    assert "POOR" in caplog.text


def test_settings_that_cannot_be_are_one_sentence() -> None:
    for name, value in (
        ("epochs", -1),
        ("labelled", 0),
        ("labelled", 1.5),
        ("learning_rate", float("inf")),
        ("batch_size", 0),
    ):
        with pytest.raises(UsageError, match=name.replace("_", "-")):
            settings_of(FeatureSettings, **{name: value})
    assert settings_of(FeatureSettings, epochs=None).epochs == 200  # the paper's


# Fine-tuning.


def test_normalise_by_hand() -> None:
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert normalise(pixels).flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert normalise(torch.zeros(2, 5, 4, 3, dtype=torch.uint8)).shape == (2, 3, 5, 4)


def test_dropout_keeps_its_rate_and_its_mean() -> None:
    layer = SeededDropout(0.4, torch.Generator().manual_seed(1))
    ones = torch.ones(100_000)
    dropped = layer(ones)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert dropped.max().item() == pytest.approx(1 / 0.6)
    assert not torch.equal(layer(ones), dropped)
    layer.generator.manual_seed(1)
    assert torch.equal(layer(ones), dropped)
    assert torch.equal(layer.eval()(ones), ones)


def test_fine_tuning_changes_every_parameter_and_learns_the_labels(network: VGG, tmp_path: Path) -> None:
    # Three classes that brightness tells apart.
    pixels = np.stack([np.full((32, 32, 3), 40 + 80 * label, np.uint8) for label in LABELS])
    before = parameters(network)
    settings = FeatureSettings(epochs=60, batch_size=4, learning_rate=1e-2)
    fine_tune(network, pixels, LABELS, settings, (0, "rgb"), tmp_path / "x", RECIPE)
    assert all(not torch.equal(before[name], value) for name, value in network.named_parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        logits = network.eval()(normalise(torch.from_numpy(pixels)))
    assert (logits.argmax(1).numpy() == LABELS).all()


def test_the_draws_depend_on_split_modality_and_seed(tmp_path: Path) -> None:
    def tuned(purpose: tuple[int, str], seed: int = 0) -> Parameters:
        network = make_network(Weights("random"), 3, 0, CPU)
        settings = SETTINGS.model_copy(update={"seed": seed})
        fine_tune(network, images(), LABELS, settings, purpose, tmp_path / "x", RECIPE)
        return parameters(network)

    first = tuned((0, "rgb"))
    assert equal(first, tuned((0, "rgb")))
    for others in (((1, "rgb"),), ((0, "depth"),), ((0, "rgb"), 1)):
        assert not equal(first, tuned(*others))
    assert seed_of("a", 1, 2) != seed_of("a", 12)


class StopAfter:
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self) -> None:
        if self.steps == 0:
            raise Interrupted("stopped")
        self.steps -= 1


@pytest.mark.parametrize("steps", [[1], [3], [5, 2], [11], [2, 2, 2, 2, 2]])
def test_stopped_and_resumed_it_is_the_same_to_the_bit(network: VGG, tmp_path: Path, steps: list[int]) -> None:
    fine_tune(network, images(), LABELS, SETTINGS, (0, "rgb"), tmp_path / "none", RECIPE)
    checkpoint = tmp_path / "checkpoint"
    for count in steps:
        resumed = make_network(Weights("random"), 3, 0, CPU)
        with pytest.raises(Interrupted):
            fine_tune(resumed, images(), LABELS, SETTINGS, (0, "rgb"), checkpoint, RECIPE, stop=StopAfter(count))
    resumed = make_network(Weights("random"), 3, 0, CPU)
    counted = []
    fine_tune(
        resumed,
        images(),
        LABELS,
        SETTINGS,
        (0, "rgb"),
        checkpoint,
        RECIPE,
        report=lambda done, *_: counted.append(done),
    )
    assert counted == list(range(sum(steps) + 1, 13))  # 4 epochs of 3 steps: none is done twice
    assert equal(parameters(resumed), parameters(network))


def test_a_finished_fine_tuning_is_kept_where_it_took_long(
    network: VGG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tune(network, images(), LABELS, SETTINGS, (0, "rgb"), tmp_path / "short", RECIPE)
    assert not (tmp_path / "short").exists()
    monkeypatch.setattr("pipeline.features.fine_tuning._WORTH_SECONDS", 0.0)
    long = make_network(Weights("random"), 3, 0, CPU)
    fine_tune(long, images(), LABELS, SETTINGS, (0, "rgb"), tmp_path / "long", RECIPE)
    again = make_network(Weights("random"), 3, 0, CPU)

    def refuse(*step: object) -> None:
        pytest.fail(f"taken again: {step}")

    fine_tune(again, images(), LABELS, SETTINGS, (0, "rgb"), tmp_path / "long", RECIPE, report=refuse)
    assert equal(parameters(again), parameters(network))


def test_checkpoints_that_will_not_do(
    network: VGG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.features.fine_tuning._CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "checkpoint"
    fine_tune(network, images(), LABELS, SETTINGS, (0, "rgb"), path, RECIPE)
    other = make_network(Weights("random"), 3, 0, CPU)
    with pytest.raises(DataError, match="belongs to other settings"):
        fine_tune(other, images(), LABELS, SETTINGS, (0, "rgb"), path, RECIPE | {"split": 1})
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    caplog.set_level(logging.WARNING)
    fine_tune(other, images(), LABELS, SETTINGS, (0, "rgb"), path, RECIPE)
    assert "fine-tuning starts again" in caplog.text
    assert equal(parameters(other), parameters(network))


def test_a_loss_that_is_not_finite_stops_it(network: VGG, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "epochs": 30})
    with pytest.raises(TrainingError, match="split 4, depth stopped: the loss of epoch"):
        fine_tune(network, images(), LABELS, settings, (4, "depth"), tmp_path / "x", RECIPE)


def test_a_state_survives_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "state"
    write_tensor_file(path, TensorFile({"a": torch.arange(5.0)}, {"step": 1}))
    with pytest.raises(StorageError, match="the disk is full"):
        write_tensor_file(path, TensorFile({"a": torch.zeros(600_000)}, {"step": 2}))
    assert read_tensor_file(path).values == {"step": 1}
    assert torch.equal(read_tensor_file(path).tensors["a"], torch.arange(5.0))
    assert [entry.name for entry in small_disk.iterdir()] == ["state"]


# fc1.


def test_fc1_is_the_first_layer_after_its_relu(network: VGG) -> None:
    pixels = images(9)
    seen = []
    hook = network.classifier[1].register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.no_grad():
        network.eval()(normalise(torch.from_numpy(pixels)))
    hook.remove()
    features = np.concatenate(list(fc1(network, [pixels], 4)))
    assert features.shape == (9, WIDTH)
    assert features.dtype == np.float32
    assert features.min() == 0
    np.testing.assert_allclose(features, seen[0].numpy(), rtol=1e-5, atol=1e-6)


def test_how_the_images_come_in_changes_nothing(network: VGG) -> None:
    pixels = images(23)
    whole = list(fc1(network, [pixels], 5))
    assert [len(block) for block in whole] == [5, 5, 5, 5, 3]
    for cuts in ([1], [7, 7, 7, 2], [23], [4, 19]):
        starts = np.cumsum([0, *cuts])
        blocks = [pixels[a : a + n] for a, n in zip(starts, [*cuts, 23 - sum(cuts)], strict=True)]
        features = list(fc1(network, blocks, 5))
        np.testing.assert_array_equal(np.concatenate(features), np.concatenate(whole))
    np.testing.assert_allclose(np.concatenate(list(fc1(network, [pixels], 64))), np.concatenate(whole), rtol=1e-5)


def test_what_reading_raises_is_raised_and_no_thread_stays(network: VGG) -> None:
    def broken() -> Iterator[Bytes]:
        yield images(8)
        raise DataError("the store is damaged")

    with pytest.raises(DataError, match="the store is damaged"):
        list(fc1(network, broken(), 4))
    early = cast(Generator[Features], fc1(network, (images(8) for _ in range(1000)), 4))
    next(early)
    early.close()
    with pytest.raises(Interrupted):
        list(fc1(network, (images(8) for _ in range(1000)), 4, stop=StopAfter(3)))
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_a_feature_that_is_not_finite_stops_it(network: VGG) -> None:
    with torch.no_grad():
        network.classifier[0].bias[2] = torch.inf
    with pytest.raises(TrainingError, match="a feature is not finite"):
        list(fc1(network, [images(3)], 4))


# The real one.


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 148])
def test_the_real_network_is_torchvisions(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(vgg, "vgg16", vgg16)
    network = make_network(Weights("random"), 51, 0, CPU)
    reference = vgg16(weights=None, init_weights=False, num_classes=51)
    reference.load_state_dict(network.state_dict())
    pixels = images(2, size)
    seen = []
    reference.classifier[1].register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.no_grad():
        reference.eval()(normalise(torch.from_numpy(pixels)).contiguous())
    (features,) = fc1(network, [pixels], 2)
    assert features.shape == (2, 4096)
    assert features.min() == 0
    assert 0.05 < (features > 0).mean() < 0.95
    np.testing.assert_allclose(features, seen[0].numpy(), rtol=1e-3, atol=1e-4)
