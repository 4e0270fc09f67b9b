"""VGG16 as torchvision builds it, with given weights and a new last layer for our classes.

Its adaptive pooling gives the first fully connected layer a 7 x 7 grid for any image side of at least 32 pixels.
Nothing here touches the global random state: every draw is a function of a seed and a purpose.
"""

import torch
from torch import Tensor, nn
from torchvision.models import VGG, vgg16  # type: ignore[import-untyped]

from pipeline.features.noise import seed_noise, seed_of
from pipeline.features.weights import Weights, load_weights

# The normalisation that the ImageNet weights expect of RGB in [0, 1]; depth, encoded as colours, is treated the same.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAST = "classifier.6"  # the layer that is replaced by one for our classes


def make_network(weights: Weights, classes: int, seed: int, device: torch.device) -> VGG:
    """VGG16 with the given weights and a new last layer for `classes` classes.

    Raises:
        DataError: the file does not hold the weights of a VGG16; the message says what is wrong.
    """
    network = blank().to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed_of("weights", seed))
    with torch.no_grad():
        if weights.path is None:
            _initialise(network, generator)
        else:
            load_weights(network, weights.path, LAST, "VGG16")
        # Drawn last, from its own seed, so that it does not depend on where the other weights come from.
        network.classifier[6] = new_head(network.classifier[6].in_features, classes, seed)
    seed_noise(network, device)
    return network.to(device, memory_format=torch.channels_last)


def blank() -> VGG:
    """VGG16 without memory for its weights (on the device `meta`)."""
    with torch.device("meta"):
        return vgg16(weights=None, init_weights=False)


def new_head(width: int, classes: int, seed: int) -> nn.Linear:
    """A last layer for our classes: weights N(0, 0.01), biases 0."""
    generator = torch.Generator().manual_seed(seed_of("last layer", seed))
    head = nn.Linear(width, classes, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        head.weight.normal_(0, 0.01, generator=generator)
        head.bias.zero_()
    return head


def _initialise(network: VGG, generator: torch.Generator) -> None:
    """Initialises as torchvision does (He 2015 for convolutions), but from our own generator."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, 0.01, generator=generator)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


def normalise(images: Tensor, mean: tuple[float, ...] = MEAN, deviation: tuple[float, ...] = DEVIATION) -> Tensor:
    """Converts uint8 `[n, S, S, 3]` to float32 `[n, 3, S, S]`, channels last in memory, as the weights expect."""
    centre = torch.tensor(mean, device=images.device).mul(255)
    scale = torch.tensor(deviation, device=images.device).mul(255).reciprocal()
    return ((images.float() - centre) * scale).permute(0, 3, 1, 2)
