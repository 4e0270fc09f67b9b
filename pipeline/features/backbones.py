"""The networks that features can be taken from: torchvision's classifiers whose last layer is linear, by name.

VGG networks give fc1 after its ReLU, as the paper takes it; of all others the input of the last layer is taken, which
torchvision's own classifier sees. Batch normalisation keeps the statistics it was trained with: those of a few labelled
images would be worse, and a batch of one image has none.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models  # type: ignore[import-untyped]

from pipeline.features import vgg
from pipeline.features.noise import seed_noise, seed_of
from pipeline.features.weights import VGG16, Weights, load_weights
from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import Distribution

FC1 = "the first fully connected layer after its ReLU (classifier[0:2])"
_LEFT_OUT = re.compile(
    r"googlenet|inception|squeezenet|mnasnet|quantized"
)  # auxiliary outputs, or no linear last layer
_ENDS_IN_RELU = re.compile(r"(alexnet|densenet|mobilenet_v2|regnet|resnet|resnext|shufflenet|vgg|wide_resnet)")
_FIXED_SIDE = re.compile(r"vit_|maxvit")  # can take images of one size alone
_SMALLEST = {"alexnet": 64}  # pixels per side; the others take the smallest that the image store holds
_NOT_ON_META = re.compile(r"regnet")  # computes with values while it is built
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Triple = tuple[float, float, float]


class InputRecipe(BaseModel):
    """How images of the store become what a network expects.

    Attributes:
        mean, std: of the channels in [0, 1], subtracted and divided by.
        resize: pixels per side to which images are scaled (bilinear, antialiased); None to take them as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: Triple = vgg.MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = vgg.DEVIATION
    resize: int | None = Field(default=None, ge=32, le=1024)

    def __call__(self, images: Tensor) -> Tensor:
        """Converts uint8 `[n, S, S, 3]` to float32 `[n, 3, s, s]`, channels last in memory."""
        pixels = vgg.normalise(images, self.mean, self.std)
        if self.resize is None or pixels.shape[2:] == (self.resize, self.resize):
            return pixels
        return functional.interpolate(pixels, (self.resize, self.resize), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Backbone:
    """A network by its name in torchvision, the layer that is taken, and what it expects and gives."""

    name: str
    layer: str
    distribution: Distribution
    input: InputRecipe

    @staticmethod
    def named(name: str) -> "Backbone":
        """The network of that name.

        Raises:
            UsageError: torchvision has none, or its last layer is not a linear one.
        """
        if name not in known():
            raise UsageError(
                f"--backbone {name}: there is no such network, or it does not end in a linear layer",
                "examples: vgg16, resnet18, resnet50, convnext_tiny, efficientnet_b0, swin_t, vit_b_16",
            )
        distribution: Distribution = "nonnegative" if _ENDS_IN_RELU.match(name) else "gaussian"
        layer = FC1 if name.startswith("vgg") else "the input of the last linear layer"
        if name == VGG16:
            return PAPERS
        weights = models.get_model_weights(name).DEFAULT
        preset = weights.transforms()
        side = int(weights.meta["min_size"][0]) if _FIXED_SIDE.match(name) else None
        return Backbone(name, layer, distribution, InputRecipe(mean=preset.mean, std=preset.std, resize=side))

    @property
    def has_upper_layers(self) -> bool:
        """Whether fully connected layers come after the one that is taken, so that they can be tuned by themselves."""
        return self.name.startswith("vgg")

    @property
    def title(self) -> str:
        """The name as messages write it."""
        return "VGG16" if self.name == VGG16 else self.name

    def check_side(self, side: int) -> None:
        """Refuses images that are too small for the network.

        Raises:
            UsageError: they are.
        """
        smallest = _SMALLEST.get(self.name, 0)
        if side < smallest:
            raise UsageError(f"{self.name} needs images of {smallest} x {smallest} pixels or more, not {side} x {side}")


PAPERS = Backbone(VGG16, FC1, "nonnegative", InputRecipe())


def known() -> list[str]:
    """The names of all networks that can be taken."""
    return [name for name in models.list_models(module=models) if not _LEFT_OUT.search(name)]


def make_network(backbone: Backbone, weights: Weights, classes: int, seed: int, device: torch.device) -> nn.Module:
    """A network with the given weights and a new last layer for `classes` classes.

    Raises:
        DataError: the file does not hold the weights of such a network; the message says what is wrong.
    """
    if backbone.name == VGG16:
        return cast(nn.Module, vgg.make_network(weights, classes, seed, device))
    network = _initialised(backbone, seed_of("weights", seed))
    head = _head(network)
    if weights.path is not None:
        load_weights(network, weights.path, head, backbone.title)
    network.set_submodule(head, vgg.new_head(_linear(network, head).in_features, classes, seed))
    seed_noise(network, device)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def for_training(network: nn.Module) -> None:
    """Puts a network into training mode, all but its batch normalisation."""
    network.train()
    for layer in network.modules():
        if isinstance(layer, _NORMS):
            layer.eval()


def trunk(backbone: Backbone, network: nn.Module) -> tuple[nn.Module, int]:
    """The network up to the layer that is taken, and the width D of what it gives, `[n, D]`.

    It shares the layers of `network`, which cannot be used as a classifier any more.
    """
    if not backbone.has_upper_layers:
        head = _head(network)
        width = _linear(network, head).in_features
        network.set_submodule(head, nn.Identity())
        return network, width
    parts = cast(Any, network)
    layers = OrderedDict(
        features=parts.features, avgpool=parts.avgpool, flatten=nn.Flatten(1), classifier=parts.classifier[:2]
    )
    return nn.Sequential(layers), int(parts.classifier[0].out_features)


def lower_layers(network: nn.Module) -> tuple[nn.Module, int]:
    """A VGG network up to its fully connected layers, and the width of what it gives, `[n, 25088]`."""
    parts = cast(Any, network)
    return nn.Sequential(parts.features, parts.avgpool, nn.Flatten(1)), int(parts.classifier[0].in_features)


def upper_layers(network: nn.Module) -> nn.Sequential:
    """A VGG network's fully connected layers, from what `lower_layers` give to the classes."""
    return cast(nn.Sequential, cast(Any, network).classifier)


def blank_trunk(backbone: Backbone) -> tuple[nn.Module, int]:
    """`trunk` of a network whose weights are still to be loaded, if possible without memory for them."""
    if backbone.name == VGG16:
        return trunk(backbone, vgg.blank())
    if _NOT_ON_META.match(backbone.name):
        return trunk(backbone, _initialised(backbone, 0))
    with torch.device("meta"):
        return trunk(backbone, _build(backbone))


def fewest_parameters(backbone: Backbone) -> int:
    """What a file must hold at least to be of a network that `blank_trunk` takes memory for: half its parameters."""
    if not _NOT_ON_META.match(backbone.name):
        return 0
    return int(models.get_model_weights(backbone.name).DEFAULT.meta["num_params"]) // 2


def _build(backbone: Backbone) -> nn.Module:
    sides = {"image_size": backbone.input.resize} if backbone.name.startswith("vit_") else {}
    network: nn.Module = models.get_model(backbone.name, weights=None, **sides)
    return network


def _initialised(backbone: Backbone, seed: int) -> nn.Module:
    """A network with torchvision's own initial weights, drawn from a seed."""
    with torch.random.fork_rng(
        devices=[]
    ):  # torchvision takes no generator: the global one is borrowed, and given back
        torch.default_generator.manual_seed(seed)
        return _build(backbone)


def _head(network: nn.Module) -> str:
    """The name of the last layer; in all networks of `known` it is linear."""
    *_, (name, _) = network.named_modules()
    return str(name)


def _linear(network: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, network.get_submodule(name))
